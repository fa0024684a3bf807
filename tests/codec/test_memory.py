"""What coding takes of memory is known before it begins."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from distillkit.codec import memory
from distillkit.codec.memory import CodingMemory
from distillkit.errors import BitstreamError, DataError
from distillkit.evaluation.evaluate import evaluate
from tests import lively

MEASURE = """
import re, resource
import numpy as np, torch
from tests import lively
torch.set_num_threads(1)
codec = lively.coder("checkerboard", precision="fp32")
expected = codec.memory_bytes(1040, 4100)
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
codec.decode(codec.encode(np.random.default_rng(0).integers(0, 256, (1040, 4100, 3), dtype=np.uint8)))
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]  # ru_maxrss may be the parent's
print(expected, int(peak) * 1024 - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_figure_is_what_a_process_takes():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MEASURE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, got = map(int, done.stdout.split())
    assert 0.8 * got < expected < 2.5 * got


def test_it_grows_with_the_picture():
    codec = lively.coder("mean-scale", precision="fp32")
    small, large, huge = (codec.memory_bytes(side, side) for side in (1000, 4000, 8000))
    assert small < large < huge
    assert huge - large > 40e6 * 25  # a float32 picture and its pixels, at least, for each of 48 megapixels


def test_the_first_large_picture_may_be_one_to_decode_and_the_stride_large():
    picture = np.zeros((1040, 4100, 3), np.uint8)
    data = lively.coder("factorized", precision="fp32").encode(picture)
    assert lively.coder("factorized", precision="fp32").decode(data).shape == picture.shape
    sizes: list[tuple[int, int]] = []

    def code(rows, columns):  # of a codec of stride 256
        sizes.append((256 * rows, 256 * columns))
        assert guard.problem(*sizes[-1], torch.device("cpu")) is None

    guard = CodingMemory(code, [], 256)
    guard.problem(4096, 4096, torch.device("cpu"))
    assert sizes == [(2048, 2048), (2048, 4096)]


def test_a_large_picture_is_reported_and_refused(tmp_path, monkeypatch, caplog):
    codec = lively.coder("factorized", precision="fp32", max_pixels=10**9)
    monkeypatch.setattr(memory, "_WORTH_REPORTING", 10**6)
    picture = np.zeros((1040, 4100, 3), np.uint8)  # just above four megapixels
    data = codec.encode(picture)
    codec.decode(data)
    reports = [record.message for record in caplog.records]
    assert len(reports) == 1  # the same for all pictures of a size
    assert reports[0].startswith("image of 4100x1040 pixels: coding it takes about 0.")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    text = r"image of 4100x1040 pixels: coding it takes about 0\.[1-9] GB of memory, got 0\.0 GB that are free; cut it"
    with pytest.raises(DataError, match=text):
        codec.encode(picture)
    with pytest.raises(BitstreamError, match=text):
        codec.decode(data)
    from PIL import Image

    Image.fromarray(picture).save(tmp_path / "large.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=f"evaluation: {text}"):  # before anything is written
        evaluate(codec, [tmp_path / "small.png", tmp_path / "large.png"], tmp_path / "out", None)
    assert not list((tmp_path / "out").rglob("*.dk"))
