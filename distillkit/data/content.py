"""What an image file holds, by its header: format, channels, bits, colour profile."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from PIL import Image, UnidentifiedImageError

from .headers import Header, read_header
from .named_colours import ColourError
from .sound import without_metadata

#: What is read: Pillow's name of each format, and how its files end. No other decoder is ever started.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = (*(suffix for suffixes in FORMATS.values() for suffix in suffixes), ".npy")
_KINDS = {
    "1": "black and white",
    "L": "greyscale",
    "LA": "greyscale with alpha",
    "P": "palette colours",
    "PA": "palette colours with alpha",
    "RGB": "RGB",
    "RGBA": "RGB with alpha",
    "CMYK": "CMYK",
    "I": "greyscale",
    "F": "greyscale in floating point",
}
_QUIET = threading.RLock()


class ImageFile(Protocol):
    """A file that holds one image: a path, or a `PackedImage` in a shard."""

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """Return the file."""
        ...


@dataclass(frozen=True)
class Content:
    """What an image file holds.

    Attributes:
        mode: Pillow's, see its "Concepts: Modes"; of 16 bits of RGB, Pillow itself keeps the upper 8.
        bits: of a channel, in the file.
        kind: the same in words.
        frames: how many pictures; the preview beside a phone's JPEG (MPO) does not count.
        profile: the ICC profile of its colours, or None for sRGB.
        unknown_colours: a description of its colours if they cannot become sRGB, or None.
        orientation: of the EXIF standard, 1 to 8; 1 is upright.
    """

    mode: str
    bits: int
    kind: str
    frames: int
    profile: bytes | None
    unknown_colours: str | None
    orientation: int

    @property
    def is_plain(self) -> bool:
        """Whether this is one picture of 8-bit RGB, nothing of which is transparent."""
        return self.kind == "RGB" and self.frames == 1

    @property
    def has_white(self) -> bool:
        """Whether it is known which value is white."""
        return self.mode != "F" and self.bits <= 16


@contextmanager
def quiet() -> Generator[None]:
    """Silence Pillow's warnings of damaged metadata, which change no pixel; one thread at a time."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_image(path: ImageFile) -> Image.Image:
    """Return the image in `path`, its pixels not yet read.

    Raises:
        ValueError: its header says more pixels than Pillow's limit, 89 megapixels.
        Exception: whatever Pillow's decoders raise.
    """
    if isinstance(path, Path) and path.exists() and not path.is_file():
        raise OSError("it is no file")  # a named pipe would be waited for
    with quiet():
        try:
            image = Image.open(path if isinstance(path, Path) else path.open("rb"), formats=list(FORMATS))
        except (UnidentifiedImageError, ValueError, SyntaxError):
            with path.open("rb") as file:
                sound = without_metadata(file)
            if sound is None:
                raise
            image = Image.open(sound, formats=list(FORMATS))
    try:
        refuse_bomb(image.width, image.height)
    except Image.DecompressionBombError:
        image.close()
        raise
    return image


def refuse_bomb(width: int, height: int) -> None:
    """Raise an error where a header says more pixels than Pillow's limit."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise Image.DecompressionBombError(f"{width}x{height}")


def describe(path: ImageFile, image: Image.Image) -> Content:
    """Return what an image holds, from its header.

    Args:
        path: its file.
        image: the same, opened.
    """
    colours = None
    try:
        with path.open("rb") as file, quiet():
            header = read_header(image, file)
    except ColourError as error:
        header, colours = Header(), str(error)
    kind = _KINDS.get("L" if header.is_grey else image.mode.partition(";")[0], f"Pillow mode {image.mode!r}")
    if "transparency" in image.info and not image.mode.startswith(("P", "RGBA", "LA")):
        kind += " with a transparent colour"
    if header.bits > 8:
        kind += f" of {header.bits} bits per channel"
    with quiet():
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    profile = header.profile or image.info.get("icc_profile") or None
    return Content(image.mode, header.bits, kind, frames, profile, colours, _orientation(image))


def _orientation(image: Image.Image) -> int:
    try:
        with quiet():
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF may be cut off or rubbish: the pixels are none of its business
        return 1
