"""Codecs that call CompressAI's coder themselves: the safe, hashed coder answers."""

from __future__ import annotations

import sys
import threading

import compressai.ans
import numpy as np
import pytest
import torch

import distillkit
import tests.habits
from distillkit.codec.bitstream import read, write
from distillkit.codec.calls import CoderCalls
from distillkit.codec.checksums import NO_HASH
from distillkit.codec.stand_ins import StandIns
from distillkit.codec.stopwatch import Stopwatch
from distillkit.errors import BitstreamError, PairError
from distillkit.model.adapters import as_codec, fingerprint
from tests.habits import HABITS
from tests.lively import picture

TABLES = ([[0, 30000, 60000, 65536], [0, 100, 200, 300, 65536]], [4, 5], [-1, -1])


def coder(habit, **options):
    torch.manual_seed(0)
    codec = as_codec(HABITS[habit]().eval())
    with torch.no_grad():
        for name, parameter in codec.module.named_parameters():
            if name.startswith("g_a") and parameter.ndim == 4:
                parameter.mul_(2.5)
    codec.update()
    return distillkit.ImageCodec(codec, fingerprint(codec.module), **options)


@pytest.fixture(scope="module", params=["slices", "held"])
def codec(request):
    return coder(request.param, precision="fp32")


@pytest.fixture(scope="module")
def data(codec):
    return codec.encode(picture())


def test_a_loop_around_the_coder_is_fast_safe_and_hashed(codec, data):
    assert codec.is_fast
    assert codec.note is None
    assert read(data).entropy_hash != NO_HASH
    assert codec.decode(data).std() > 1
    assert tests.habits.RansDecoder is compressai.ans.RansDecoder
    assert type(compressai.ans.RansDecoder()).__module__ == "compressai.ans"


def test_its_pictures_are_those_of_the_codecs_own_coder(codec, data):
    module = codec.adapter.module
    padded = np.pad(picture(), ((0, 28), (0, 42), (0, 0)), mode="edge")
    with torch.no_grad():
        coded = module.compress(torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255)
        x_hat = module.decompress(coded["strings"], coded["shape"])["x_hat"]
    expected = x_hat[0, :, :100, :150].permute(1, 2, 0).mul(255).round().numpy()
    difference = abs(codec.decode(data).astype(int) - expected)
    assert (difference > 1).mean() < 0.01  # a latent on the edge between two integers may be rounded to either
    assert len(data) < sum(len(string) for strings in coded["strings"] for string in strings) + 40  # our header


def test_a_forged_file_is_refused_and_cannot_crash(codec, data):
    image, random = read(data), np.random.default_rng(0)
    for trial in range(20):
        substreams = [bytearray(each) for each in image.substreams]
        chosen = substreams[trial % len(substreams)]
        chosen[int(random.integers(len(chosen)))] ^= 1 << int(random.integers(8))
        if trial % 4 == 3:
            del chosen[len(chosen) // 2 :]
        forged = write(type(image)(**(vars(image) | {"substreams": tuple(map(bytes, substreams))})))
        with pytest.raises(BitstreamError):
            codec.decode(forged)


class TestCalls:
    def made(self):
        calls = CoderCalls(Stopwatch())
        return calls, calls.made("BufferedRansEncoder"), calls.made("RansDecoder")

    def test_symbols_come_back_in_other_portions(self):
        calls, encoder, decoder = self.made()
        random = np.random.default_rng(1)
        symbols = random.integers(-40, 40, 500).tolist() + [0] * 500
        indexes = random.integers(0, 2, 1000).tolist()
        encoder.encode_with_indexes(symbols[:300], indexes[:300], *TABLES)
        encoder.encode_with_indexes(symbols[300:], indexes[300:], *TABLES)
        data = encoder.flush()
        written = calls.checksums("encode")
        decoder.set_stream(data)
        got = [decoder.decode_stream(indexes[i : i + 7], *TABLES) for i in range(0, 1000, 7)]
        assert [symbol for part in got for symbol in part] == symbols
        assert calls.checksums("decode") == written

    def test_a_stream_of_one_call(self):
        calls = CoderCalls(Stopwatch())
        data = calls.made("RansEncoder").encode_with_indexes([5, -1, 0], [0, 1, 1], *TABLES)
        assert calls.made("RansDecoder").decode_with_indexes(data, [0, 1, 1], *TABLES) == [5, -1, 0]

    def test_what_is_left_is_found(self):
        calls, encoder, decoder = self.made()
        encoder.encode_with_indexes([0] * 100, [0] * 100, *TABLES)
        decoder.set_stream(encoder.flush())
        decoder.decode_stream([0] * 10, *TABLES)
        with pytest.raises(BitstreamError, match="end with its last symbol"):
            calls.checksums("decode")

    def test_wrong_calls(self):
        _, encoder, decoder = self.made()
        with pytest.raises(PairError, match="expected 1 indexes, each of one of 2 tables, got others"):
            encoder.encode_with_indexes([0], [2], *TABLES)
        with pytest.raises(PairError, match="set_stream before decode_stream"):
            decoder.decode_stream([0], *TABLES)
        encoder.encode_with_indexes([2**30], [0], *TABLES)
        with pytest.raises(PairError, match="expected symbols up to"):
            encoder.flush()


def test_only_the_thread_that_codes_is_answered():
    stand_ins, seen = StandIns(CoderCalls(Stopwatch())), []
    with stand_ins.answering():
        thread = threading.Thread(target=lambda: seen.append(type(tests.habits.RansEncoder()).__module__))
        thread.start()
        thread.join()
        seen.append(type(sys.modules["tests.habits"].RansEncoder()).__module__)
    assert seen == ["compressai.ans", "distillkit.codec.calls"]
    assert tests.habits.RansEncoder is compressai.ans.RansEncoder


def test_attention_with_a_mask_runs_in_bfloat16_under_autocast():
    half, full = coder("masked", precision="bf16"), coder("masked", precision="fp32")
    transform = half._coder.adapter.module.g_a
    assert transform._under_autocast
    assert not half._coder.adapter.module.g_s._under_autocast
    data = half.encode(picture())
    assert abs(half.decode(data).astype(int) - full.decode(data)).max() <= 12
