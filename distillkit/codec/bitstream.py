"""The compressed file: one image, self-contained but for the model.

All integers are unsigned; those of fixed size are little-endian.

| bytes | field |
|---|---|
| 4 | magic: `DKIC` in ASCII |
| 1 | version: 3 |
| 8 | the first 8 bytes of the fingerprint of the model that wrote the file |
| 4 | `entropy_hash` of the size and of what the entropy decoder must come to; 0 if the codec has none |
| 1 | colour: 0, 8-bit RGB as sRGB has it |
| 2 | width of the unpadded image in pixels, 1 to 65535 |
| 2 | height of the unpadded image in pixels, 1 to 65535 |
| 1 | number of substreams, 1 to 64 |
| 1 to 5 for each substream | its length in bytes: LEB128 (7 bits a byte, lowest first, top bit if more), shortest |
| the sum of the lengths | the substreams, one after the other, in the codec's own order |
| 4 | CRC-32 (zlib's) over all bytes before it |

The sizes of the latents are not stored: they follow from the model and the image's size (`runtime`). The CRC tells
damaged files from sound ones. The entropy hash tells files that were decoded to something else than was encoded:
whether by a forger who mended the CRC, or by a device that computes other entropy parameters. Neither is a signature:
who has the model can write a sound file of any picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError

MAGIC = b"DKIC"
VERSION = 3
COLOUR_SRGB = 0
MAX_SIDE = 65535
MAX_SUBSTREAMS = 64
NUM_FINGERPRINT_BYTES = 8
NO_HASH = bytes(4)
_HEAD = struct.Struct("<4sB8s4sBHHB")
_SIZE = struct.Struct("<HH")
_CRC = struct.Struct("<I")
_MAX_LENGTH_BYTES = 5
_DAMAGED = "the file is damaged; copy or compress it again."


@dataclass(frozen=True)
class CompressedImage:
    """What a compressed file holds.

    Attributes:
        fingerprint: the first 8 bytes of the model's fingerprint.
        width: of the unpadded image, in pixels.
        height: of the unpadded image, in pixels.
        substreams: the entropy coder's byte strings, in the codec's own order.
        entropy_hash: of all that they code, 4 bytes; `NO_HASH` of a codec whose coding cannot be watched.
    """

    fingerprint: bytes
    width: int
    height: int
    substreams: tuple[bytes, ...]
    entropy_hash: bytes = NO_HASH

    def check_model(self, fingerprint: bytes) -> None:
        """Check that the model of that fingerprint, 8 bytes, wrote the file.

        Raises:
            BitstreamError: another one did.
        """
        if self.fingerprint != fingerprint:
            raise BitstreamError(
                f"compressed file: expected one of model {fingerprint.hex()}, got one of model "
                f"{self.fingerprint.hex()}; decode it with the model that wrote it."
            )

    def check_decoded(self, checksums: Mapping[str, int]) -> None:
        """Check that the substreams were decoded to what was encoded.

        Args:
            checksums: of each entropy model, see `entropy_hash`.

        Raises:
            BitstreamError: their hash is another than the file's.
        """
        digest = entropy_hash(self.width, self.height, checksums)
        if self.entropy_hash != digest:
            raise BitstreamError(
                f"compressed file: expected entropy hash {self.entropy_hash.hex()}, got {digest.hex()}; either the "
                "entropy parameters came out differently here (another device or library version), or the file was "
                "forged; decode it where it was made, or compress the image again."
            )


def entropy_hash(width: int, height: int, checksums: Mapping[str, int]) -> bytes:
    """Return the hash of a picture's size and of all that its substreams code, 4 bytes; `NO_HASH` if nothing was coded.

    It is the CRC-32 over width and height, 2 bytes each, and then, of every entropy model that coded, in the order of
    their names, the name in UTF-8, a zero byte and the checksum in 4 bytes; 1 in place of 0.

    Args:
        width: of the unpadded image, in pixels.
        height: of the unpadded image, in pixels.
        checksums: each entropy model's name in the codec -> its checksum, see `step_checksum`.
    """
    if not checksums:
        return NO_HASH
    parts = [name.encode() + b"\0" + _CRC.pack(checksums[name]) for name in sorted(checksums)]
    return _CRC.pack(max(zlib.crc32(b"".join((_SIZE.pack(width, height), *parts))), 1))


def step_checksum(indexes: NDArray[Any], values: NDArray[Any], before: int = 0) -> int:
    """Return an entropy model's checksum after a further step of coding: CRC-32 over both, as 4-byte integers.

    Args:
        indexes: of the symbols' tables, int32.
        values: of the latent, symbol plus mean, in 1/256, rounded to int32, of the same shape.
        before: the checksum before this step.
    """
    crc = zlib.crc32(np.ascontiguousarray(indexes, "<i4").data, before)
    return zlib.crc32(np.ascontiguousarray(values, "<i4").data, crc)


def write(image: CompressedImage) -> bytes:
    """Return the file that holds `image`.

    Raises:
        BitstreamError: a field is outside the format's bounds.
    """
    _check_bounds(image.width, image.height, len(image.substreams))
    if len(image.fingerprint) != NUM_FINGERPRINT_BYTES:
        raise BitstreamError(
            f"compressed file: expected a fingerprint of {NUM_FINGERPRINT_BYTES} bytes, got {len(image.fingerprint)}; "
            "pass the first 8 bytes of distillkit's fingerprint of the model."
        )
    if len(image.entropy_hash) != len(NO_HASH):
        raise BitstreamError(
            f"compressed file: expected an entropy hash of 4 bytes, got {len(image.entropy_hash)}; pass NO_HASH where "
            "there is none."
        )
    about = (image.fingerprint, image.entropy_hash, COLOUR_SRGB, image.width, image.height, len(image.substreams))
    head = _HEAD.pack(MAGIC, VERSION, *about)
    lengths = b"".join(_leb128(len(substream)) for substream in image.substreams)
    body = b"".join((head, lengths, *image.substreams))
    return body + _CRC.pack(zlib.crc32(body))


def read(data: bytes) -> CompressedImage:
    """Return what the compressed file `data` holds; every field is checked before anything is returned.

    Raises:
        BitstreamError: `data` is not a sound file of this format.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise BitstreamError(
            f"compressed file, byte 0: expected {MAGIC!r}, got {bytes(data[: len(MAGIC)])!r}; "
            "this is not a file that distillkit compressed."
        )
    least = _HEAD.size + 1 + _CRC.size
    if len(data) < least:
        raise BitstreamError(f"compressed file: expected at least {least} bytes, got {len(data)}; {_DAMAGED}")
    _, version, fingerprint, digest, colour, width, height, num_substreams = _HEAD.unpack_from(data)
    if version != VERSION:
        raise BitstreamError(
            f"compressed file, byte 4: expected format version {VERSION}, got {version}; "
            "read it with the version of distillkit that wrote it."
        )
    end = len(data) - _CRC.size
    (expected_crc,) = _CRC.unpack_from(data, end)
    crc = zlib.crc32(data[:end])
    if crc != expected_crc:
        raise BitstreamError(f"compressed file: expected CRC-32 {expected_crc:08x}, got {crc:08x}; {_DAMAGED}")
    if colour != COLOUR_SRGB:
        raise BitstreamError(
            f"compressed file, byte 17: expected colour {COLOUR_SRGB} (8-bit sRGB), got {colour}; "
            "read it with the version of distillkit that wrote it."
        )
    _check_bounds(width, height, num_substreams)
    position = _HEAD.size
    lengths = []
    for index in range(num_substreams):
        length, position = _read_leb128(data, position, end, index)
        lengths.append(length)
    if sum(lengths) != end - position:
        raise BitstreamError(
            f"compressed file, byte {position}: expected substreams of {sum(lengths)} bytes in all, "
            f"got {end - position} bytes; {_DAMAGED}"
        )
    substreams = []
    for length in lengths:
        substreams.append(bytes(data[position : position + length]))
        position += length
    return CompressedImage(fingerprint, width, height, tuple(substreams), digest)


def _check_bounds(width: int, height: int, num_substreams: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise BitstreamError(
            f"compressed file: expected an image with sides of 1 to {MAX_SIDE} pixels, got {width}x{height}; "
            "cut the image into parts, or compress it again."
        )
    if not 1 <= num_substreams <= MAX_SUBSTREAMS:
        raise BitstreamError(
            f"compressed file: expected 1 to {MAX_SUBSTREAMS} substreams, got {num_substreams}; "
            "use a codec with fewer, or compress the image again."
        )


def _leb128(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_leb128(data: bytes, position: int, end: int, index: int) -> tuple[int, int]:
    """Return the number at `position`, and the position after it."""
    number = 0
    for count, byte in enumerate(data[position : min(end, position + _MAX_LENGTH_BYTES)]):
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count > 0:
                break  # not the shortest form: two files would hold the same image
            return number, position + count + 1
    raise BitstreamError(
        f"compressed file, byte {position}: expected the length of substream {index} "
        f"in at most {_MAX_LENGTH_BYTES} bytes, got bytes that are no such number; {_DAMAGED}"
    )
