"""Reads a picture whose metadata are damaged without them: its pixels may be undamaged."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import BinaryIO

_MOST_BYTES = 2**30
_PNG = b"\x89PNG\r\n\x1a\n"
#: PNG's chunks that decide on pixels and colours, and the least length of each.
_CHUNKS = {b"IHDR": 13, b"PLTE": 3, b"IDAT": 0, b"IEND": 0, b"tRNS": 1, b"iCCP": 4, b"eXIf": 8}
#: Likewise of JPEG's application segments: what they begin with.
_SEGMENTS = {b"JFIF\0": 14, b"Exif\0\0": 14, b"ICC_PROFILE\0": 15, b"Adobe": 12}


def without_metadata(file: BinaryIO) -> BytesIO | None:
    """Return a PNG or JPEG file with only what decides pixels, colours and orientation.

    Args:
        file: open in binary mode, at its start.

    Returns:
        The file, or None where it is of another format, or larger than 1 GiB.
    """
    head = file.read(8)
    if not head.startswith((_PNG, b"\xff\xd8\xff")):
        return None
    data = head + file.read(_MOST_BYTES)
    if len(data) > _MOST_BYTES:
        return None
    return BytesIO(_png(data) if head == _PNG else _jpeg(data))


def _png(data: bytes) -> bytes:
    parts, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + length]
        is_sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        is_critical = kind[:1].isupper()  # left as it is: Pillow says what is wrong with it
        if is_critical or (is_sound and length >= _CHUNKS.get(kind, length + 1)):
            parts.append(chunk)
        at += 12 + length
    return b"".join(parts)


def _jpeg(data: bytes) -> bytes:
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # up to the start of the scan
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at : at + 2 + length]
        least = next((size for name, size in _SEGMENTS.items() if segment[4:].startswith(name)), length)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or least < length:
            parts.append(segment)
        at += 2 + length
    return b"".join([*parts, data[at:]])
