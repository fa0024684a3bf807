"""What Pillow leaves out of an image file's header: bits per channel, and colours that are named without a profile."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from PIL import Image

from .named_colours import adobe_rgb_profile, chromatic_profile, cicp_profile

_HEAD_BYTES = 1 << 20


class Header(NamedTuple):
    """Of one image.

    Attributes:
        bits: of a channel.
        is_grey: whether it is grey though Pillow takes it for RGB.
        profile: an ICC profile of the colours, or None for sRGB or where Pillow itself has it.
    """

    bits: int = 8
    is_grey: bool = False
    profile: bytes | None = None


def read_header(image: Image.Image, file: Any) -> Header:
    """Return what the header says.

    Args:
        image: opened.
        file: the same, open in binary mode, at its start.

    Raises:
        ColourError: the colours cannot become sRGB, as those of high dynamic range.
    """
    match image.format:
        case "PNG":
            return _png(file.read(_HEAD_BYTES))
        case "AVIF":
            return _avif(file.read(_HEAD_BYTES))
        case "JPEG2000":
            return _jpeg_2000(file.read(_HEAD_BYTES))
        case "TIFF":
            samples: Any = getattr(image, "tag_v2", {}).get(258, 8)  # BitsPerSample
            return Header(max(samples) if isinstance(samples, tuple) else int(samples))
        case "PPM":
            args: Any = getattr(image, "tile")[0].args  # noqa: B009 - of image files, which have it
            highest = args[1] if isinstance(args, tuple) and isinstance(args[1], int) else 255
            return Header(16 if args == "I;16B" else max(highest.bit_length(), 8))
        case "JPEG" | "MPO":
            return Header(profile=adobe_rgb_profile() if _is_adobe_rgb(image) else None)
        case _:
            return Header()


def _png(head: bytes) -> Header:
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, at)
        if kind == b"IDAT":
            break
        chunks.setdefault(kind, head[at + 8 : at + 8 + length])
        at += 12 + length
    bits, profile = chunks[b"IHDR"][8], None
    if len(chunks.get(b"cICP", b"")) == 4:
        profile = cicp_profile(chunks[b"cICP"][0], chunks[b"cICP"][1])
    elif b"sRGB" not in chunks and b"iCCP" not in chunks and len(chunks.get(b"gAMA", b"")) == 4:
        numbers = struct.unpack(">8I", chunks[b"cHRM"]) if len(chunks.get(b"cHRM", b"")) == 32 else None
        profile = chromatic_profile(struct.unpack(">I", chunks[b"gAMA"])[0] / 1e5, numbers)
    return Header(bits, profile=profile)


def _avif(head: bytes) -> Header:
    at = head.find(b"av1C")  # the AV1 configuration record; its third byte: high_bitdepth, twelve_bit, monochrome
    flags = head[at + 6] if at >= 0 else 0
    bits = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    colours = head.find(b"colrnclx")
    named = struct.unpack_from(">HH", head, colours + 8) if 0 <= colours <= len(head) - 12 else None
    profile = cicp_profile(*named) if named and b"colrprof" not in head and b"colrrICC" not in head else None
    return Header(bits, bool(flags & 0x10), profile)


def _jpeg_2000(head: bytes) -> Header:
    at = head.index(b"\xff\x4f\xff\x51") + 4  # the SIZ segment
    num_channels = int.from_bytes(head[at + 36 : at + 38], "big")
    bits = max((byte & 0x7F) + 1 for byte in head[at + 38 : at + 38 + 3 * num_channels : 3])
    box = head.find(b"colr", 0, at)
    if box < 0 or head[box + 4] != 2:  # enumerated: sRGB, grey or the like
        return Header(bits)
    length = int.from_bytes(head[box - 4 : box], "big")
    return Header(bits, profile=head[box + 7 : box - 4 + length])


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Return whether a camera names Adobe RGB in EXIF (DCF 2.0), without a profile."""
    if "icc_profile" in image.info:
        return False
    try:
        exif = image.getexif()
        return exif.get_ifd(0x8769).get(0xA001) != 1 and exif.get_ifd(0xA005).get(1) == "R03"
    except Exception:  # damaged EXIF says nothing of colours
        return False
