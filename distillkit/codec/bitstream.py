"""The compressed file: one image; to decode it you also need the model.

All integers are unsigned; those of fixed size are little-endian.

| bytes | field |
|---|---|
| 4 | magic: `DKIC` in ASCII |
| 1 | version: 4 |
| 8 | the first 8 bytes of the fingerprint of the model that wrote the file |
| 4 | the first 4 bytes of the fingerprint of its entropy path, see `entropy_path`; 0 if it is not known |
| 4 | `entropy_hash` of the size and of what the entropy decoder must decode; 0 if the codec has none |
| 1 | fields: bit 0 a quality, bit 1 samples that are not 8-bit RGB; the other bits are 0 |
| 2 | width of the unpadded image in pixels, 1 to 65535 |
| 2 | height of the unpadded image in pixels, 1 to 65535 |
| 1 | number of substreams, 1 to 64 |
| 2, if fields has bit 0 | quality in 1/65535 |
| 3, if fields has bit 1 | number of channels, 1 to 65535 (2 bytes), and bits of a sample, 1 to 16; not 3 and 8 |
| 1 to 5 for each substream | its length in bytes: LEB128 (7 bits a byte, lowest first, top bit if more), shortest |
| the sum of the lengths | the substreams, one after the other, in the codec's own order |
| 4 | CRC-32 (zlib's) over all bytes before it |

The sizes of the latents are not stored: they follow from the model and the image's size (`runtime`). The CRC shows
damage. The entropy path shows which models decode the file: those that compute the same latents from it. The entropy
hash shows that decoding gave something else than was encoded: the file was forged with a correct CRC, or the device
computes other entropy parameters. None is a signature: anyone who has the model can write a valid file of any picture.
Version 3 had no entropy path, and a byte 0 in place of the fields; such files are read, too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..errors import BitstreamError
from .checksums import NO_HASH, entropy_hash

__all__ = ["CompressedImage", "read", "write"]

MAGIC = b"DKIC"
VERSION = 4
MAX_SIDE = 65535
MAX_CHANNELS = 65535
MAX_BIT_DEPTH = 16
MAX_SUBSTREAMS = 64
QUALITY_STEPS = 65535  #: a file holds a quality as a whole number of these steps
NUM_FINGERPRINT_BYTES = 8
NUM_PATH_BYTES = 4
NO_PATH = bytes(NUM_PATH_BYTES)
#: How a file of each version that is read begins; the last fields are width, height and number of substreams.
HEADS = {VERSION: struct.Struct("<4sB8s4s4sBHHB"), 3: struct.Struct("<4sB8s4sBHHB")}
QUALITY, SAMPLES = struct.Struct("<H"), struct.Struct("<HB")
HAS_QUALITY, HAS_SAMPLES = 1, 2
_CRC = struct.Struct("<I")
_MAX_LENGTH_BYTES = 5
_DAMAGED = "the file is damaged; copy or compress it again."
_NEWER = "read it with the version of distillkit that wrote it."


@dataclass(frozen=True)
class CompressedImage:
    """What a compressed file holds.

    Attributes:
        fingerprint: the first 8 bytes of the model's fingerprint.
        width: of the unpadded image, in pixels.
        height: of the unpadded image, in pixels.
        substreams: the entropy coder's byte strings, in the codec's own order.
        entropy_hash: of all that they code, 4 bytes; `NO_HASH` of a codec whose coding cannot be watched.
        entropy_path: the first 4 bytes of the fingerprint of what decodes the substreams; `NO_PATH` if not known.
        quality: at which a codec of variable rate coded the image, 0 to 1, as `file_quality` rounds it; None of a codec
            of one rate.
        num_channels: of the image, 1 to 65535; 3 are red, green and blue.
        bit_depth: bits of a sample, 1 to 16; of 8 and three channels the image is sRGB.
    """

    fingerprint: bytes
    width: int
    height: int
    substreams: tuple[bytes, ...]
    entropy_hash: bytes = NO_HASH
    entropy_path: bytes = NO_PATH
    quality: float | None = None
    num_channels: int = 3
    bit_depth: int = 8

    def check_model(self, fingerprint: bytes, entropy_path: bytes, reads: Collection[bytes] = ()) -> None:
        """Check that a model decodes the file: it wrote it, or shares the entropy path of the model that did.

        Args:
            fingerprint: of the model, 8 bytes.
            entropy_path: of the model, 4 bytes; `NO_PATH` if it is not known.
            reads: fingerprints of other models that are known to share its path.

        Raises:
            BitstreamError: it does not.
        """
        unknown = NO_PATH in (self.entropy_path, entropy_path)  # as in files of version 3
        decodes = self.fingerprint in (fingerprint, *reads) if unknown else self.entropy_path == entropy_path
        if not decodes:
            raise BitstreamError(
                f"compressed file: expected one of model {fingerprint.hex()}, entropy path {_known(entropy_path)}, got "
                f"one of model {self.fingerprint.hex()}, entropy path {_known(self.entropy_path)}; decode it with the "
                "model that wrote it, or with a light decoder of that model."
            )

    def check_samples(self, num_channels: int, bit_depth: int) -> None:
        """Check that the image has the channels and bits that a codec decodes.

        Raises:
            BitstreamError: it has others.
        """
        if (self.num_channels, self.bit_depth) != (num_channels, bit_depth):
            raise BitstreamError(
                f"compressed file: expected an image of {num_channels} channels with {bit_depth} bits, as the model "
                f"decodes, got {self.num_channels} with {self.bit_depth}; decode it with the model that wrote it."
            )

    def check_rate(self, is_variable: bool) -> None:
        """Check that the file has a quality if, and only if, a codec has a variable rate.

        Raises:
            BitstreamError: it is missing, or there is one too many.
        """
        if (self.quality is not None) != is_variable:
            raise BitstreamError(
                f"compressed file: expected one of a codec of {'variable' if is_variable else 'one'} rate, got quality "
                f"{self.quality}; decode it with the model that wrote it."
            )

    def check_decoded(self, checksums: Mapping[str, int]) -> None:
        """Check that the substreams were decoded to what was encoded.

        Args:
            checksums: of each entropy model, see `entropy_hash`.

        Raises:
            BitstreamError: their hash differs from the file's.
        """
        digest = entropy_hash(self.width, self.height, checksums)
        if self.entropy_hash != digest:
            raise BitstreamError(
                f"compressed file: expected entropy hash {self.entropy_hash.hex()}, got {digest.hex()}; either the "
                "entropy parameters came out differently here (another device or library version), or the file was "
                "forged; decode it where it was made, or compress the image again."
            )


def file_quality(quality: float) -> float:
    """Return the value nearest to `quality`, 0 to 1, that a file can hold: encode with this one."""
    return round(quality * QUALITY_STEPS) / QUALITY_STEPS


def write(image: CompressedImage) -> bytes:
    """Return the file that holds `image`.

    Raises:
        BitstreamError: a field is outside the format's bounds.
    """
    check_bounds(image.width, image.height, len(image.substreams))
    _check_samples(image)
    sizes = (len(image.fingerprint), len(image.entropy_path), len(image.entropy_hash))
    if sizes != (NUM_FINGERPRINT_BYTES, NUM_PATH_BYTES, len(NO_HASH)):
        raise BitstreamError(
            f"compressed file: expected a fingerprint of {NUM_FINGERPRINT_BYTES} bytes, an entropy path of "
            f"{NUM_PATH_BYTES} and an entropy hash of {len(NO_HASH)}, got {sizes[0]}, {sizes[1]} and {sizes[2]}; pass "
            "the first bytes of distillkit's fingerprints, NO_PATH and NO_HASH where there is none."
        )
    fields, extra = 0, b""
    if image.quality is not None:
        fields |= HAS_QUALITY
        extra += QUALITY.pack(round(image.quality * QUALITY_STEPS))
    if (image.num_channels, image.bit_depth) != (3, 8):
        fields |= HAS_SAMPLES
        extra += SAMPLES.pack(image.num_channels, image.bit_depth)
    about = (image.fingerprint, image.entropy_path, image.entropy_hash, fields, image.width, image.height)
    head = HEADS[VERSION].pack(MAGIC, VERSION, *about, len(image.substreams))
    lengths = b"".join(_leb128(len(substream)) for substream in image.substreams)
    body = b"".join((head, extra, lengths, *image.substreams))
    return body + _CRC.pack(zlib.crc32(body))


def read(data: bytes) -> CompressedImage:
    """Return what the compressed file `data`, of this version or version 3, holds, after checking every field.

    Raises:
        BitstreamError: `data` is not a valid file of this format.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise BitstreamError(
            f"compressed file, byte 0: expected {MAGIC!r}, got {bytes(data[: len(MAGIC)])!r}; "
            "this is not a file that distillkit compressed."
        )
    version = data[len(MAGIC)] if len(data) > len(MAGIC) else VERSION
    if version not in HEADS:
        raise BitstreamError(
            f"compressed file, byte 4: expected format version 3 or {VERSION}, got {version}; {_NEWER}"
        )
    layout = HEADS[version]
    least = layout.size + 1 + _CRC.size
    if len(data) < least:
        raise BitstreamError(f"compressed file: expected at least {least} bytes, got {len(data)}; {_DAMAGED}")
    end = len(data) - _CRC.size
    (expected_crc,) = _CRC.unpack_from(data, end)
    crc = zlib.crc32(data[:end])
    if crc != expected_crc:
        raise BitstreamError(f"compressed file: expected CRC-32 {expected_crc:08x}, got {crc:08x}; {_DAMAGED}")
    _, _, fingerprint, *path, digest, fields, width, height, num_substreams = layout.unpack_from(data)
    known = HAS_QUALITY | HAS_SAMPLES if version == VERSION else 0
    if fields & ~known:
        place = layout.size - 6
        raise BitstreamError(f"compressed file, byte {place}: expected fields up to {known}, got {fields}; {_NEWER}")
    check_bounds(width, height, num_substreams)
    quality, samples, position = None, (3, 8), layout.size
    if fields & HAS_QUALITY:
        quality = QUALITY.unpack(_take(data, position, QUALITY.size, end))[0] / QUALITY_STEPS
        position += QUALITY.size
    if fields & HAS_SAMPLES:
        samples = SAMPLES.unpack(_take(data, position, SAMPLES.size, end))
        if samples == (3, 8):  # two files would hold the same image
            raise BitstreamError(f"compressed file, byte {position}: expected samples that are not RGB; {_DAMAGED}")
        position += SAMPLES.size
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
    about = (fingerprint, width, height, tuple(substreams), digest, path[0] if path else NO_PATH)
    image = CompressedImage(*about, quality, *samples)
    _check_samples(image)
    return image


def check_bounds(width: int, height: int, num_substreams: int = 1) -> None:
    """Raise a BitstreamError where the format has no room for an image; call it before coding."""
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


def _check_samples(image: CompressedImage) -> None:
    if image.quality is not None and not 0 <= image.quality <= 1:
        raise BitstreamError(f"compressed file: expected a quality of 0 to 1, got {image.quality}; pass one of these.")
    if not (1 <= image.num_channels <= MAX_CHANNELS and 1 <= image.bit_depth <= MAX_BIT_DEPTH):
        raise BitstreamError(
            f"compressed file: expected 1 to {MAX_CHANNELS} channels of 1 to {MAX_BIT_DEPTH} bits, got "
            f"{image.num_channels} of {image.bit_depth}; cut the image into parts, or compress it again."
        )


def _take(data: bytes, position: int, size: int, end: int) -> bytes:
    if position + size > end:
        raise BitstreamError(
            f"compressed file, byte {position}: expected {size} more bytes, got {end - position}; {_DAMAGED}"
        )
    return data[position : position + size]


def _known(path: bytes) -> str:
    return "unknown" if path == NO_PATH else path.hex()


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
