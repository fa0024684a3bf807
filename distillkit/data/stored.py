"""Reads and writes pictures that are not 8-bit RGB, in PNG, TIFF, NumPy and other files; no value is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .content import ImageFile, describe, open_image, refuse_bomb
from .samples import Samples

SUFFIXES = (".png", ".tif", ".tiff", ".npy")  #: of the files that are written
_NUMPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}  # Pillow's, of 8 bits


class Stored(NamedTuple):
    """What the header of an image file says, and how to get its values.

    Attributes:
        height: in pixels.
        width: in pixels.
        channels: samples of a pixel.
        dtype: of a sample.
        read: returns the values, upright.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    read: Callable[[], NDArray[Any]]

    def problem(self, samples: Samples) -> str | None:
        """Return how it differs from the samples that are wanted, or None."""
        if (self.channels, self.dtype) == (samples.channels, samples.dtype):
            return None
        got = f"{self.channels} channel{'s' * (self.channels > 1)} of {self.dtype}"
        return f"expected {samples}, in {samples.dtype}, got {got}; give the codec pictures with such samples."


def is_numpy(path: ImageFile) -> bool:
    """Return whether a file is one of NumPy's; False of what cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(len(_NUMPY)) == _NUMPY
    except OSError:
        return False


def open_stored(path: ImageFile) -> Stored:
    """Return what an image file holds, whatever its channels and bits.

    Raises:
        ValueError: its kind cannot be read without a change.
        Exception: whatever the decoders raise.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_NUMPY):
        return _numpy(path)
    if head.startswith(_TIFF):
        return _tiff(path)
    with open_image(path) as image:
        content, size = describe(path, image), (image.height, image.width)
    if content.frames > 1:
        raise ValueError("several frames; save the one that is meant")
    if image.format == "PNG" and image.mode.startswith("I"):
        channels, dtype = 1, np.dtype(np.uint16)
    elif content.bits <= 8 and image.mode in _MODES and "transparent" not in content.kind:
        channels, dtype = _MODES[image.mode], np.dtype(np.uint8)
    else:
        raise ValueError(f"{content.kind}; save it as TIFF or .npy")

    def read() -> NDArray[Any]:
        with open_image(path) as image:
            values = np.asarray(image).reshape(*size, channels)
        return _upright(values, content.orientation)

    return Stored(*size, channels, dtype, read)


def write_picture(path: Path, values: NDArray[Any], suffix: str) -> None:
    """Write a picture, without loss.

    Args:
        path: the file.
        values: uint8 or uint16, shape (H, W, C).
        suffix: of `SUFFIXES`, whatever the path ends with; `.png` for one channel, or three of uint8.

    Raises:
        OSError: it cannot be written.
    """
    one = values[:, :, 0] if values.shape[2] == 1 else values
    if suffix == ".npy":
        with path.open("wb") as file:
            np.save(file, values, allow_pickle=False)
    elif suffix == ".png":
        Image.fromarray(one).save(path, "png")
    else:
        import tifffile

        photometric = "rgb" if values.shape[2] == 3 else "minisblack"
        planes = "contig" if one.ndim == 3 else None  # else its rows would become pages
        tifffile.imwrite(path, one, photometric=photometric, planarconfig=planes, compression="zlib", metadata=None)


def _numpy(path: ImageFile) -> Stored:
    with path.open("rb") as file:
        major = np.lib.format.read_magic(file)[0]
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of shape {shape}; expected (H, W) or (H, W, C)")
    refuse_bomb(shape[1], shape[0])

    def read() -> NDArray[Any]:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False).reshape(height, width, channels)

    height, width, channels = int(shape[0]), int(shape[1]), int((*shape, 1)[2])
    return Stored(height, width, channels, dtype.newbyteorder("="), read)


def _tiff(path: ImageFile) -> Stored:
    import tifffile  # at first use: an export's driver, which has this file, needs none

    with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
        if len(tiff.pages) != 1:
            raise ValueError(f"{len(tiff.pages)} pages; expected one, with the bands as its samples")
        page: Any = tiff.pages[0]
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise ValueError(f"a TIFF of axes {page.axes}, {page.photometric.name}; save it as plain samples")
        separate, orientation = page.axes == "SYX", page.tags.valueof(274, 1)
        shape = page.shape[1:] + page.shape[:1] if separate else (*page.shape, 1)[:3]
        dtype = page.dtype
    refuse_bomb(shape[1], shape[0])

    def read() -> NDArray[Any]:
        try:
            with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
                values = tiff.pages[0].asarray()
        except Exception as error:
            if "imagecodecs" not in str(error):
                raise
            values = _tiff_by_pillow(path, error)
        values = values.transpose(1, 2, 0) if separate and values.ndim == 3 else values
        return _upright(values.reshape(shape), orientation)

    return Stored(shape[0], shape[1], shape[2], dtype.newbyteorder("="), read)


def _tiff_by_pillow(path: ImageFile, error: Exception) -> NDArray[Any]:
    try:
        with open_image(path) as image:
            if image.mode in (*_MODES, "I;16", "I;16B"):
                return np.asarray(image)
    except OSError:
        pass  # of kinds that Pillow does not know
    raise ValueError(f"{error}; install that, or save the picture without compression") from error


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return the picture as EXIF's orientation, 1 to 8, has it seen."""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return values[::rows, ::columns]
