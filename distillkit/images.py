"""Find and read images, strictly: 8-bit RGB or a clear error, never a silent conversion."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
_CONVERT = "convert it to 8-bit RGB or remove it"
_MODES = {
    "1": "a black-and-white picture",
    "L": "a greyscale picture",
    "LA": "a greyscale picture with alpha",
    "P": "a palette picture",
    "RGBA": "RGB with alpha",
    "CMYK": "a CMYK picture",
}
_NUM_NAMED = 5


class ImageFile(Protocol):
    """A file that holds one image: a path, or a `PackedImage` in a shard."""

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """Return the file."""
        ...


@dataclass(frozen=True)
class ImageProblem:
    """Why one file cannot be used.

    Attributes:
        path: the file.
        message: what was expected, what was got and what to do, as one sentence.
    """

    path: ImageFile
    message: str

    def __str__(self) -> str:
        return f"image {self.path}: {self.message}"


def list_images(folder: Path) -> list[Path]:
    """Return every image under `folder`, subfolders included, in sorted order; files are told by their suffix.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        raise DataError(f"images {folder}: expected a folder, got {got}; check the path.")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise DataError(
            f"images {folder}: expected files that end in {', '.join(SUFFIXES)}, got none, subfolders included; "
            "check the path or put images there."
        )
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_image(path: str | ImageFile, min_side: int = 1) -> NDArray[np.uint8]:
    """Return the picture in `path`, upright by its EXIF orientation: uint8, shape (H, W, 3), RGB.

    Args:
        path: an image file, or an image in a shard.
        min_side: the least height and width in pixels.

    Raises:
        DataError: the file is unreadable or truncated, not 8-bit RGB, or too small.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened(path) as image:
        _refuse(path, image, min_side)
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(image)


def check_image(path: ImageFile, min_side: int = 1) -> ImageProblem | None:
    """Return what is wrong with `path` by its header alone, or None; only `read_image` notices damaged pixels."""
    if (size := getattr(path, "verified_size", None)) is not None:  # by `pack`
        return _too_small(path, size, min_side)
    try:
        with _opened(path) as image:
            _refuse(path, image, min_side)
    except _BadImageError as error:
        return error.problem
    return None


def find_problems(paths: Sequence[ImageFile], min_side: int = 1) -> list[ImageProblem]:
    """Return the problems that `check_image` finds in `paths`; leave those files out to skip them."""
    return [problem for path in paths if (problem := check_image(path, min_side)) is not None]


def check_images(paths: Sequence[ImageFile], min_side: int = 1) -> None:
    """Check the headers of all `paths`.

    Raises:
        DataError: some cannot be used; the first five are named.
    """
    problems = find_problems(paths, min_side)
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems[:_NUM_NAMED]]
    if len(problems) > _NUM_NAMED:
        lines.append(f"  ... and {len(problems) - _NUM_NAMED} more.")
    raise DataError(
        f"images: expected all {len(paths)} to be 8-bit RGB of at least {min_side} pixels a side, got {len(problems)} "
        'that cannot be used; mend them, or set data.bad_images = "skip" in the recipe to leave them out:\n'
        + "\n".join(lines)
    )


class _BadImageError(DataError):
    def __init__(self, problem: ImageProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self) -> tuple[type[_BadImageError], tuple[ImageProblem]]:
        return type(self), (self.problem,)


@contextmanager
def _opened(path: ImageFile) -> Generator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # Pillow warns, and goes on, about decompression bombs (RuntimeWarning) and damaged metadata (UserWarning).
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("error", UserWarning)
            with Image.open(path if isinstance(path, Path) else path.open("rb")) as image:
                yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        problem = f"expected a picture of ordinary size, got {error}; cut it into smaller pictures."
        raise _BadImageError(ImageProblem(path, problem)) from error
    except Exception as error:  # Pillow's decoders raise all sorts: OSError, SyntaxError, ValueError, struct.error
        problem = f"expected a readable image, got {type(error).__name__}: {error}; save it again or remove it."
        raise _BadImageError(ImageProblem(path, problem)) from error


def _refuse(path: ImageFile, image: Image.Image, min_side: int) -> None:
    problem = None
    if image.mode != "RGB":
        got = _MODES.get(image.mode, "another kind of picture")
        problem = f"expected 8-bit RGB, got {got} (Pillow mode {image.mode!r}); {_CONVERT}."
    elif hidden := _hidden_kind(path, image):
        problem = f"expected 8-bit RGB, got {hidden}; {_CONVERT}."
    elif getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview beside it
        problem = "expected one picture, got several frames; save the frame you want or remove the file."
    elif small := _too_small(path, image.size, min_side):
        raise _BadImageError(small)
    if problem is not None:
        raise _BadImageError(ImageProblem(path, problem))


def _too_small(path: ImageFile, size: tuple[int, int], min_side: int) -> ImageProblem | None:
    if min(size) >= min_side:
        return None
    least, got = f"{min_side}x{min_side}", f"{size[0]}x{size[1]}"
    return ImageProblem(
        path, f"expected at least {least} pixels (the crop), got {got}; remove it or take a smaller crop."
    )


def _hidden_kind(path: ImageFile, image: Image.Image) -> str | None:
    """Return what the file holds if it is not 8-bit RGB although Pillow opens it as such."""
    if "transparency" in image.info:
        return "RGB with a transparent colour"
    bits = 8
    if image.format == "PNG":
        bits = _head(path, 25)[24]  # IHDR: 8 bytes signature, 8 chunk head, 4 width, 4 height, bit depth
    elif image.format == "TIFF":
        samples = image.getexif().get(258, 8)  # BitsPerSample
        bits = max(samples) if isinstance(samples, tuple) else int(samples)
    elif image.format == "AVIF":
        head = _head(path, 1 << 16)
        at = head.find(
            b"av1C"
        )  # AV1 configuration record: flags high_bitdepth, twelve_bit, monochrome in its third byte
        flags = head[at + 6] if at >= 0 else 0
        if flags & 0x10:
            return _MODES["L"]
        bits = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    return None if bits == 8 else f"{bits} bits a channel"


def _head(path: ImageFile, num_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(num_bytes)
