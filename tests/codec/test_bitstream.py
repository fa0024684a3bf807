import random
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from distillkit.codec.bitstream import NO_PATH, CompressedImage, file_quality, read, write
from distillkit.codec.checksums import NO_HASH, entropy_hash, step_checksum
from distillkit.errors import BitstreamError

FINGERPRINT = bytes(range(8))
HEAD = b"DKIC\x04" + FINGERPRINT + b"pathhash\0"  # up to the width


def example(*substreams: bytes, width: int = 768, height: int = 512) -> CompressedImage:
    return CompressedImage(FINGERPRINT, width, height, substreams, b"hash", b"path")


def other_samples(fields: int, *extra: int) -> bytes:
    """Return a file of these fields, what they say, and one empty substream."""
    return sealed(HEAD[:-1] + bytes([fields]) + b"\5\0\5\0\1" + bytes(extra) + b"\0")


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_bytes_are_as_documented():
    data = write(example(b"ab", b"", b"x" * 300, width=0x0102, height=3))
    body = HEAD + b"\x02\x01\x03\x00\x03" + b"\x02\x00\xac\x02" + b"ab" + b"x" * 300
    assert data == sealed(body)


@pytest.mark.parametrize(
    "image",
    [
        example(b""),
        example(b"a", b"", b"bcd"),
        example(*[bytes([index]) * index for index in range(64)], width=1, height=65535),
        example(bytes(127), bytes(128), bytes(16384)),
        replace(example(b"ab"), quality=file_quality(0.4)),
        replace(example(b"ab"), quality=0.0, num_channels=1),
        replace(example(b"ab"), quality=1.0, num_channels=65535, bit_depth=16),
        replace(example(b"ab"), bit_depth=1, entropy_path=NO_PATH),
    ],
)
def test_round_trip(image):
    assert read(write(image)) == image


def test_overhead_of_three_substreams():
    substreams = (b"a" * 2_000_000, b"b" * 2_000_000, b"c" * 100_000)
    assert len(write(example(*substreams))) - sum(map(len, substreams)) <= 40


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"byte 0: expected b'DKIC', got b''"),
        (b"\x89PNG" + bytes(60), r"expected b'DKIC', got b'\\x89PNG'; this is not a file"),
        (b"DKIC", "expected at least 32 bytes, got 4"),
        (b"DKIC\x03", "expected at least 28 bytes, got 5; the file is damaged"),
        (b"DKIC\x04" + bytes(26), "expected at least 32 bytes, got 31; the file is damaged"),
        (sealed(b"DKIC\x02" + bytes(19)), "byte 4: expected format version 3 or 4, got 2; read it with"),
        (sealed(b"DKIC\x03" + FINGERPRINT + b"hash\1\5\0\5\0\1\0"), "byte 17: expected fields up to 0, got 1"),
        (other_samples(4), "byte 21: expected fields up to 3, got 4; read it with the version"),
        (other_samples(0x83, 1, 0, 1, 0, 1), "byte 21: expected fields up to 3, got 131"),
        (other_samples(1), "byte 27: expected 2 more bytes, got 1"),
        (other_samples(2, 1), "byte 27: expected 3 more bytes, got 2"),
        (other_samples(2, 3, 0, 8), "byte 27: expected samples that are not RGB"),
        (other_samples(2, 0, 0, 8), "1 to 65535 channels of 1 to 16 bits, got 0 of 8"),
        (other_samples(2, 1, 0, 0), "got 1 of 0"),
        (other_samples(2, 1, 0, 17), "got 1 of 17"),
        (write(example(b"abc"))[:-1], "expected CRC-32"),
        (sealed(HEAD + b"\0\0\5\0\1\0"), "sides of 1 to 65535 pixels, got 0x5"),
        (sealed(HEAD + b"\5\0\0\0\1\0"), "sides of 1 to 65535 pixels, got 5x0"),
        (sealed(HEAD + b"\5\0\5\0\0\0"), "expected 1 to 64 substreams, got 0"),
        (sealed(HEAD + b"\5\0\5\0\x41" + bytes(65)), "expected 1 to 64 substreams, got 65"),
        (sealed(HEAD + b"\5\0\5\0\1\3ab"), "substreams of 3 bytes in all, got 2"),
        (sealed(HEAD + b"\5\0\5\0\1\1ab"), "substreams of 1 bytes in all, got 2"),
        (sealed(HEAD + b"\5\0\5\0\2\1\1a"), "substreams of 2 bytes in all, got 1"),
        (sealed(HEAD + b"\5\0\5\0\2\0"), "length of substream 1"),
        (sealed(HEAD + b"\5\0\5\0\1\x81\0a"), "length of substream 0"),
        (sealed(HEAD + b"\5\0\5\0\1" + b"\xff" * 5 + b"\1"), "length of substream 0"),
        (sealed(HEAD + b"\5\0\5\0\1\xff"), "length of substream 0"),
    ],
)
def test_each_check(data, message):
    with pytest.raises(BitstreamError, match=message):
        read(data)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (example(b"a", width=65536), "got 65536x512"),
        (example(b"a", height=0), "got 768x0"),
        (example(), "got 0"),
        (example(*[b""] * 65), "got 65"),
        (CompressedImage(b"short", 1, 1, (b"",)), "fingerprint of 8 bytes.* got 5, 4 and 4"),
        (CompressedImage(FINGERPRINT, 1, 1, (b"",), b"no"), "entropy hash of 4, got 8, 4 and 2"),
        (CompressedImage(FINGERPRINT, 1, 1, (b"",), entropy_path=b"no"), "entropy path of 4 .* got 8, 2 and 4"),
        (replace(example(b"a"), quality=1.01), "quality of 0 to 1, got 1.01"),
        (replace(example(b"a"), quality=float("nan")), "quality of 0 to 1, got nan"),
        (replace(example(b"a"), num_channels=0), "got 0 of 8"),
        (replace(example(b"a"), bit_depth=17), "got 3 of 17"),
    ],
)
def test_writing_checks_too(image, message):
    with pytest.raises(BitstreamError, match=message):
        write(image)


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    kind = rng.randrange(6)
    changed = bytearray(data)
    place = rng.randrange(len(data))
    if kind == 0:
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        changed[place : place + rng.randint(0, 20)] = rng.randbytes(rng.randint(0, 20))
    elif kind == 3:
        changed[place:] = other[rng.randrange(len(other)) :]
    elif kind == 4:
        changed = bytearray(rng.choice([b"", b"DKIC", b"DKIC\x03", b"DKIC\x04"]) + rng.randbytes(rng.randint(0, 80)))
    else:
        changed += rng.randbytes(rng.randint(1, 8))
    return bytes(changed)


def test_mutated_files_are_refused_or_the_original():
    rng = random.Random(0)
    files = [
        write(example(rng.randbytes(200), rng.randbytes(30), b"")),
        write(replace(example(rng.randbytes(90), width=9), quality=0.2, num_channels=4, bit_depth=12)),
    ]
    images = [read(file) for file in files]
    refused = 0
    for trial in range(20_000):
        mine, other = (0, 1) if trial % 2 else (1, 0)
        data = mutate(rng, files[mine], files[other])
        try:
            got = read(data)
        except BitstreamError:
            refused += 1
        else:
            assert data in files
            assert got == images[files.index(data)]
    assert refused > 19_000


def test_resealed_mutations_are_refused_or_have_one_meaning():
    """With a CRC that fits, the other checks stand alone: what is read writes back the very bytes."""
    rng = random.Random(1)
    file = write(example(rng.randbytes(40), rng.randbytes(5)))
    outcomes = {True: 0, False: 0}
    for _ in range(20_000):
        data = sealed(mutate(rng, file[:-4], file[:-4]))
        try:
            got = read(data)
        except BitstreamError:
            outcomes[False] += 1
        else:
            assert write(got) == data or data[4] == 3
            outcomes[True] += 1
    assert min(outcomes.values()) > 1000


def test_entropy_hash_by_hand():
    """CRC-32 over indexes and values of each step, then over names and checksums in the order of the names."""
    steps = [([1, 2], [256, -5]), ([0], [7])]
    checksum = 0
    for indexes, values in steps:
        checksum = step_checksum(np.array(indexes, np.int64), np.array(values, np.int32), checksum)
    y = zlib.crc32(struct.pack("<ii ii i i", 1, 2, 256, -5, 0, 7))
    assert checksum == y
    whole = zlib.crc32(b"\3\1\4\0" + b"y\0" + struct.pack("<I", y) + b"z\0" + struct.pack("<I", 9))
    assert entropy_hash(0x103, 4, {"z": 9, "y": y}) == struct.pack("<I", whole)


def test_entropy_hash_is_never_that_of_none(monkeypatch):
    assert entropy_hash(3, 4, {}) == NO_HASH
    monkeypatch.setattr(zlib, "crc32", lambda *_: 0)
    assert entropy_hash(3, 4, {"y": 5}) == b"\1\0\0\0" != NO_HASH


def test_what_was_decoded_is_checked():
    image = example(b"abc", width=3, height=4)
    image = replace(image, entropy_hash=entropy_hash(3, 4, {"y": 5}))
    image.check_decoded({"y": 5})
    for other in (image, replace(image, width=4)):
        with pytest.raises(BitstreamError, match=f"entropy hash {image.entropy_hash.hex()}, got .*; either"):
            other.check_decoded({"y": 6} if other is image else {"y": 5})
    with pytest.raises(BitstreamError, match="got 00000000"):
        image.check_decoded({})


def test_the_version_before_is_read():
    body = b"DKIC\x03" + FINGERPRINT + b"hash\0" + b"\2\1\3\0\1" + b"\2ab"
    assert read(sealed(body)) == CompressedImage(FINGERPRINT, 0x102, 3, (b"ab",), b"hash")


@pytest.mark.parametrize("quality", [0, 1, 0.4, 1 / 3, 0.1234567])
def test_a_quality_is_kept_to_half_a_step(quality):
    kept = file_quality(quality)
    assert abs(kept - quality) <= 0.5 / 65535
    assert file_quality(kept) == kept == read(write(replace(example(b"a"), quality=kept))).quality


@pytest.mark.parametrize(
    ("file", "model", "decodes"),
    [
        ((FINGERPRINT, b"path"), (FINGERPRINT, b"path"), True),
        ((FINGERPRINT, b"path"), (b"a light1", b"path"), True),  # what it is for
        ((FINGERPRINT, b"path"), (b"another1", b"road"), False),
        ((FINGERPRINT, b"path"), (FINGERPRINT, b"road"), False),
        ((FINGERPRINT, NO_PATH), (FINGERPRINT, b"path"), True),  # of version 3
        ((FINGERPRINT, NO_PATH), (b"another1", b"path"), False),
        ((FINGERPRINT, NO_PATH), (FINGERPRINT, NO_PATH), True),
        ((FINGERPRINT, NO_PATH), (b"another1", NO_PATH), False),
    ],
)
def test_which_model_decodes_which_file(file, model, decodes):
    image = replace(example(b"a"), fingerprint=file[0], entropy_path=file[1])
    if decodes:
        return image.check_model(*model)
    with pytest.raises(BitstreamError, match="decode it with the model that wrote it, or with a light decoder"):
        image.check_model(*model)
    return None


def test_what_a_codec_cannot_decode_is_refused():
    grey, varied = replace(example(b"a"), num_channels=1, bit_depth=12), replace(example(b"a"), quality=0.5)
    grey.check_samples(1, 12)
    with pytest.raises(BitstreamError, match="an image of 3 channels with 8 bits.* got 1 with 12"):
        grey.check_samples(3, 8)
    varied.check_rate(is_variable=True)
    with pytest.raises(BitstreamError, match="codec of one rate, got quality 0.5"):
        varied.check_rate(is_variable=False)
    with pytest.raises(BitstreamError, match="codec of variable rate, got quality None"):
        grey.check_rate(is_variable=True)
