import random
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from distillkit.codec.bitstream import NO_HASH, CompressedImage, entropy_hash, read, step_checksum, write
from distillkit.errors import BitstreamError

FINGERPRINT = bytes(range(8))
HEAD = b"DKIC\x03" + FINGERPRINT + b"hash\0"  # up to the width


def example(*substreams: bytes, width: int = 768, height: int = 512) -> CompressedImage:
    return CompressedImage(FINGERPRINT, width, height, substreams, b"hash")


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
        (b"DKIC\x03", "expected at least 28 bytes, got 5; the file is damaged"),
        (sealed(b"DKIC\x01" + bytes(19)), "byte 4: expected format version 3, got 1; read it with"),
        (sealed(HEAD[:-1] + b"\1\5\0\5\0\1\0"), "byte 17: expected colour 0 .8-bit sRGB., got 1"),
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
        (CompressedImage(b"short", 1, 1, (b"",)), "fingerprint of 8 bytes, got 5"),
        (CompressedImage(FINGERPRINT, 1, 1, (b"",), b"no"), "entropy hash of 4 bytes, got 2"),
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
        changed = bytearray(rng.choice([b"", b"DKIC", b"DKIC\x03"]) + rng.randbytes(rng.randint(0, 80)))
    else:
        changed += rng.randbytes(rng.randint(1, 8))
    return bytes(changed)


def test_mutated_files_are_refused_or_the_original():
    rng = random.Random(0)
    files = [write(example(rng.randbytes(200), rng.randbytes(30), b"")), write(example(rng.randbytes(90), width=9))]
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
            assert write(got) == data
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
