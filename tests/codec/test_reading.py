"""Compressed files from strangers: the first bytes decide whether the rest is read, and few bytes cost little."""

from __future__ import annotations

import os
import resource
from dataclasses import replace

import numpy as np
import pytest

from distillkit.codec.bitstream import CompressedImage, read, write
from distillkit.codec.reading import read_compressed
from distillkit.errors import BitstreamError
from distillkit.evaluation.decode import decoder_of
from tests import lively

SOUND = write(CompressedImage(bytes(8), 100, 50, (b"abc", b"")))


def padded(path, data):
    """Write a file of 6 GB that begins with `data`; a hole takes no room."""
    with path.open("wb") as file:
        file.write(data)
        file.truncate(6 << 30)
    return path


#: What a file of 6 GB begins with, and what is wrong with it.
BEGINNINGS = {
    "nothing": (b"", "byte 0: expected b'DKIC'"),
    "magic alone": (b"DKIC", "expected format version 3 or 4, got 0"),
    "a sound picture": (SOUND, "expected at most 433612 bytes, for an image of 100x50 pixels, got more"),
    "a large one": (write(CompressedImage(bytes(8), 65535, 65535, (b"abc",))), "at most 67108864 pixels, got 65535x65"),
    "no picture": (SOUND[:22] + bytes(50), "sides of 1 to 65535 pixels, got 0x0"),
}


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_file_that_cannot_be_one_is_not_read(kind, tmp_path):
    data, message = BEGINNINGS[kind]
    file = padded(tmp_path / "file.dk", data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BitstreamError, match=message):
        read_compressed(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_what_is_read(tmp_path):
    file = tmp_path / "file.dk"
    file.write_bytes(SOUND)
    assert read_compressed(str(file)) == SOUND
    assert read_compressed(file, max_pixels=5000) == SOUND
    with pytest.raises(BitstreamError, match=r"at most 4999 pixels, got 100x50; .* raise max_pixels"):
        read_compressed(file, max_pixels=4999)
    for length in range(len(SOUND)):
        file.write_bytes(SOUND[:length])
        with pytest.raises(BitstreamError):
            read(read_compressed(file))


def test_no_device_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.dk")
    for path in (tmp_path / "fifo.dk", tmp_path, "/dev/zero"):
        with pytest.raises(BitstreamError, match="expected a file, got a folder or device"):
            read_compressed(path)


def test_evaluation_reads_so_too(tmp_path):
    file = padded(tmp_path / "zeros.dk", b"")
    with pytest.raises(BitstreamError, match="byte 0"):
        list(decoder_of(lively.coder("factorized"))([(file, tmp_path / "out.png")]))


@pytest.mark.parametrize("kind", lively.KINDS)
def test_few_bytes_that_claim_a_large_picture_are_refused_at_once(kind):
    """Networks of 67 megapixels would take minutes and gigabytes."""
    codec = lively.coder(kind, precision="fp32")
    image = read(codec.encode(np.zeros((64, 64, 3), np.uint8)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in (b"", b"\1\2\3"):
        forged = replace(image, width=8192, height=8192, substreams=tuple(data for _ in image.substreams))
        with pytest.raises(BitstreamError, match="expected a substream of at least [0-9]{4,} bytes"):
            codec.decode(write(forged))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB: indexes of 3 million symbols
