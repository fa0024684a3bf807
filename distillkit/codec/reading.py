"""Compressed files from disk: the header limits how much of the rest is read."""

from __future__ import annotations

from pathlib import Path

from ..errors import BitstreamError
from .bitstream import HAS_QUALITY, HAS_SAMPLES, HEADS, MAGIC, QUALITY, SAMPLES, check_bounds, read

MAX_PIXELS = 2**26  #: of an image that is decoded, by default: 67 megapixels
_BYTES_A_PIXEL = 4  # more than any codec needs of a picture: RGB itself has three
_MARGIN = 255  # pixels that a codec may pad either side by
_HEAD_BYTES = 512  # beside the substreams, at most


def read_compressed(path: str | Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return the bytes of a compressed file, for `ImageCodec.decode`; what cannot be one is not read.

    Args:
        path: the file.
        max_pixels: of the largest image that is decoded.

    Raises:
        BitstreamError: it does not begin like one, its image is too large, or it is too long for its image.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise BitstreamError(f"compressed file {path}: expected a file, got a folder or device; check the path.")
    with path.open("rb") as file:
        head = file.read(max(layout.size for layout in HEADS.values()) + QUALITY.size + SAMPLES.size)
        layout = HEADS.get(head[len(MAGIC)]) if head[: len(MAGIC)] == MAGIC and len(head) > len(MAGIC) else None
        if layout is None or len(head) < layout.size:
            read(head)  # says what is wrong
            return head
        *_, fields, width, height, _ = layout.unpack_from(head)
        check_bounds(width, height)
        check_size(width, height, max_pixels)
        most = _HEAD_BYTES + _bytes_a_pixel(head, layout.size, fields) * (width + _MARGIN) * (height + _MARGIN)
        data = head + file.read(most + 1 - len(head))
    if len(data) > most:
        raise BitstreamError(
            f"compressed file {path}: expected at most {most} bytes, for an image of {width}x{height} pixels, got "
            "more; copy it again, or ask where it comes from."
        )
    return data


def _bytes_a_pixel(head: bytes, position: int, fields: int) -> int:
    """Return how many bytes a pixel of the image may take; `position` is that of what follows the fixed fields."""
    position += QUALITY.size if fields & HAS_QUALITY else 0
    if not fields & HAS_SAMPLES or len(head) < position + SAMPLES.size:
        return _BYTES_A_PIXEL
    channels, bits = SAMPLES.unpack_from(head, position)
    return (1 + channels) * (1 if bits <= 8 else 2)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Check that an image is not too large to be decoded.

    Raises:
        BitstreamError: it is.
    """
    if width * height > max_pixels:
        raise BitstreamError(
            f"compressed file: expected an image of at most {max_pixels} pixels, got {width}x{height}; if you trust "
            "the file and have the memory, raise max_pixels (`--max-pixels`)."
        )
