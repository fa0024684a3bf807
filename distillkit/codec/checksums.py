"""Checksums of what an entropy coder codes: what was decoded is compared with what was encoded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_HASH = bytes(4)  #: of a codec whose coding cannot be watched
_SIZE = struct.Struct("<HH")
_CRC = struct.Struct("<I")


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
