"""Several threads and one codec: what a server with a pool of threads does."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import distillkit
from distillkit.codec.runtime import ImageCodec
from distillkit.errors import BitstreamError
from distillkit.model.adapters import CodecAdapter, CodecOutput, CompressedLatents, fingerprint
from tests import lively

NUM_THREADS = 4


class Forgetful(CodecAdapter):
    """A codec that codes by itself and keeps what a call is about in its module, as research code does."""

    stride = 16

    def __init__(self):
        self.module = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return CodecOutput(images, {})

    def compress(self, images):
        self.module.images = images
        for _ in range(20):
            torch.ones(200, 200).exp()  # lets go of Python's lock
        pixels = (self.module.images * 255).round().to(torch.uint8)
        return CompressedLatents([[pixels.numpy().tobytes()]], {"height": pixels.shape[2], "width": pixels.shape[3]})

    def decompress(self, latents):
        self.module.latents = latents
        for _ in range(20):
            torch.ones(200, 200).exp()
        ((data,),), shape = self.module.latents.strings, self.module.latents.shape
        pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return pixels.reshape(1, 3, shape["height"], shape["width"]).float() / 255


@pytest.fixture(autouse=True)
def _frequent_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (64, 128), (80, 48), (33, 70)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) // 8 * (index + 1) for index, size in enumerate(sizes)]


def in_turns(codecs, rounds=2):
    """Encode and decode every picture in each thread, each thread with its own codec, and compare with one thread."""
    images = pictures()
    files = [codecs[0].encode(image) for image in images]
    decoded = [codecs[0].decode(file) for file in files]

    def work(thread):
        codec = codecs[thread % len(codecs)]
        for turn in range(rounds):
            at = (thread + turn) % len(images)
            assert codec.encode(images[at]) == files[at]
            np.testing.assert_array_equal(codec.decode(files[at]), decoded[at])
        return True

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        assert all(pool.map(work, range(NUM_THREADS)))


@pytest.mark.parametrize("kind", ["checkerboard", "serial", "factorized"])
def test_threads_that_share_a_codec_write_and_read_what_one_thread_does(kind):
    adapter = lively.adapter(kind)
    in_turns([ImageCodec(adapter, fingerprint(adapter.module), precision="fp32")])


def test_codecs_that_share_a_module_which_codes_by_itself():
    adapter = Forgetful()
    in_turns([ImageCodec(adapter, "0" * 16) for _ in range(2)])


def test_a_failed_call_lets_the_others_in():
    adapter = Forgetful()
    codec = ImageCodec(adapter, "0" * 16)
    with pytest.raises(BitstreamError):
        codec.decode(b"DKIC")
    in_turns([codec], rounds=1)


def test_entropy_models_leave_every_thread_its_own_autocast():
    other_is_inside, this_is_done = threading.Event(), threading.Event()

    class Model(nn.Module):
        _quantized_cdf = None

        def forward(self, x, act):
            return act() and x

    def first():  # enters first and leaves first
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.zeros(1), lambda: other.start() or other_is_inside.wait(10))
            kept = torch.is_autocast_enabled("cpu")
        this_is_done.set()
        return kept

    model, after = Model(), []
    adapter = Forgetful()
    adapter.module.add_module("entropy", model)
    adapter.module.compress = adapter.module.decompress = lambda strings, shape=None: None
    distillkit.CompressAIAdapter(adapter.module)
    other = threading.Thread(
        target=lambda: (
            model(torch.zeros(1), lambda: other_is_inside.set() or this_is_done.wait(10)),
            after.append(torch.is_autocast_enabled("cpu")),
        )
    )
    assert first()
    other.join()
    assert after == [False]
