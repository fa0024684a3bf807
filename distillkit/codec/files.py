"""Files to compressed files and back: each file is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ..data.images import BadImageError, read_image
from ..data.samples import Samples
from ..data.stored import write_picture
from ..errors import BitstreamError, DistillkitError, is_out_of_memory
from ..model.file import load_model
from .bitstream import read
from .fast.codec import Precision
from .rate_control import Encoded, Wanted, encode_as_wanted
from .reading import MAX_PIXELS, read_compressed
from .runtime import ImageCodec

SUFFIX = ".dk"  #: of compressed files
Direction = Literal["compress", "decompress"]


@dataclass(frozen=True)
class Settings:
    """What all files of one call have in common.

    Attributes:
        direction: compress or decompress.
        model: a run folder or model file.
        precision: of the transforms, see `ImageCodec`.
        convert: take pictures of other kinds, see `read_image`.
        max_pixels: larger images are not decoded.
        trusted: also use a decoder that forged files can crash, see `ImageCodec`.
        device: where the codec runs, see `load_model`.
        wanted: the rate or quality that compressed pictures should have; None with a model of one rate.
    """

    direction: Direction
    model: Path
    precision: Precision = "auto"
    convert: bool = False
    max_pixels: int = MAX_PIXELS
    trusted: bool = False
    device: str = "cpu"
    wanted: Wanted | None = None


@dataclass(frozen=True)
class Coded:
    """What became of one file.

    Attributes:
        source: file that was read.
        target: file that was written.
        width: of the picture, in pixels; 0 if it failed.
        height: of the picture, in pixels; 0 if it failed.
        compressed_bytes: size of the compressed file; 0 if it failed.
        error: why nothing was written, or None.
        quality: at which a model of many rates compressed it, in [0, 1]; else None.
        reached: its value in the measure that was wanted; else None.
    """

    source: Path
    target: Path
    width: int = 0
    height: int = 0
    compressed_bytes: int = 0
    error: str | None = None
    quality: float | None = None
    reached: float | None = None


def target_suffix(direction: Direction, source: Path) -> str:
    """Return how the target's name ends: pictures go to PNG, or to TIFF where PNG does not have such samples."""
    if direction == "compress":
        return SUFFIX
    try:
        image = read(read_compressed(source))
    except (BitstreamError, OSError):  # which decoding reports
        return ".png"
    return Samples(image.num_channels, image.bit_depth).suffix


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Give a name beside `path` to write to; it takes the place of `path` at the end, or vanishes on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.part")  # however long the name is
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_codec(settings: Settings) -> ImageCodec:
    """Return the codec of a model.

    Raises:
        DistillkitError: the model cannot be used.
    """
    model = load_model(settings.model, device=settings.device)
    options = {"precision": settings.precision, "max_pixels": settings.max_pixels, "trusted": settings.trusted}
    return ImageCodec(model.codec, model.fingerprint, **options)  # type: ignore[arg-type]


def code_file(codec: ImageCodec, settings: Settings, source: Path, target: Path) -> Coded:
    """Compress or decompress one file; an error becomes part of the result."""
    try:
        encoded, pixels = _read(codec, settings, source)
    except Exception as error:  # of the file, of its coding, of too little memory: the others are coded all the same
        return Coded(source, target, error=_message(source, error, settings))
    try:
        with whole_file(target) as part:
            if settings.direction == "compress":
                part.write_bytes(encoded.data)
            else:
                write_picture(part, pixels, target.suffix.lower())
    except OSError as error:
        return Coded(source, target, error=f"file {target}: cannot be written: {error.strerror or error}.")
    height, width, _ = pixels.shape
    return Coded(source, target, width, height, len(encoded.data), None, encoded.quality, encoded.value)


def _read(codec: ImageCodec, settings: Settings, source: Path) -> tuple[Encoded, NDArray[Any]]:
    """Return the compressed file and the picture, one of which is read and the other made."""
    if settings.direction == "compress":
        pixels = read_image(source, convert=settings.convert, samples=codec.samples)
        return encode_as_wanted(codec, pixels, settings.wanted), pixels
    data = read_compressed(source, settings.max_pixels)
    return Encoded(data), codec.decode(data)


def _message(source: Path, error: Exception, settings: Settings) -> str:
    if isinstance(error, DistillkitError):
        text = str(error)
        if isinstance(error, BadImageError) and error.problem.convertible and not settings.convert:
            text += " Or pass `--convert` to convert it to what the model codes."
        return text if str(source) in text else f"file {source}: {text}"
    if is_out_of_memory(error):
        return f"file {source}: expected enough memory, got too little; cut the picture into parts, or free memory."
    if isinstance(error, OSError):
        return f"file {source}: cannot be read: {error.strerror or error}."
    return f"file {source}: cannot be coded: {type(error).__name__}: {' '.join(str(error).split())[:300]}."
