"""Codecs with habits of their own go through a whole distillation, and compress to real bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import distillkit
import tests.foreign_codecs
from distillkit.model.nesting import flatten_strings, is_plain, nest_strings
from distillkit.taps.bank import TapBank
from distillkit.taps.points import as_map
from tests.foreign_codecs import MeanScaleHyperprior, TokenAdapter, TokenCodec

FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}
CROPS = {"tokens": 64, "nested": 128, "wide": 256, "sequence": 64}


@pytest.fixture
def plugins():
    return distillkit.load_plugins(foreign=tests.foreign_codecs)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (2, 34, 33, 3))
    for number, small in enumerate(noise):
        large = np.kron(small, np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(large).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CROPS)
def test_a_whole_distillation_and_real_files(name, recipe, pictures, tmp_path, plugins):
    common = {
        "pair": {"name": f"foreign.{name}"},
        "data": {"train": pictures, "crop": CROPS[name], "batch_size": 1},
        "precision": "fp32",
    }
    teacher = distillkit.train(
        recipe(**common, trains="teacher", num_steps=2, schedule={"name": "core.constant"}),
        tmp_path / "t",
        plugins=plugins,
    )
    run = tmp_path / "s"
    distillkit.train(recipe(**common, losses=FEDS, teacher=teacher, num_steps=6, log_every=1), run, plugins=plugins)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss/feds.alignment"] > 0
    assert any(row.get("loss/feds.channel_entropy", 0) > 0 for row in rows)
    assert [rows[0]["phase"], rows[-1]["phase"]] == ["align", "finetune"]
    picture = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    first, second = (distillkit.load_model(run, plugins) for _ in range(2))
    data = distillkit.ImageCodec(first.codec, first.fingerprint).encode(picture)
    decoded = distillkit.ImageCodec(second.codec, second.fingerprint).decode(data)
    assert decoded.shape == picture.shape
    assert np.array_equal(decoded, distillkit.ImageCodec(first.codec, first.fingerprint).decode(data))


def test_tokens_are_found_by_their_resolution(plugins):
    provider_class, config = plugins.configure("taps", "models.by_resolution", {}, "test")
    taps = distillkit.find_taps(tests.foreign_codecs.Sequence(12), provider_class(config), (64, 64))
    assert {role: path for role, path in taps.items() if role.startswith("analysis")} == {
        "analysis.1/2": "g_a.0",
        "analysis.1/4": "g_a.1",
        "analysis.1/8": "g_a.2",
    }
    assert taps["latent"] == "g_a"


class TestTapsByMethod:
    def test_a_method_is_heard_only_while_the_bank_runs(self):
        codec = TokenAdapter(TokenCodec(12))
        bank = TapBank(codec, {"latent": "analyse"}, "student")
        images = torch.rand(1, 3, 32, 48)
        output, features = bank.run(images, ["latent"])
        assert output is not None
        assert torch.equal(features["latent"], codec.module.analyse(images))
        assert "analyse" not in vars(codec.module)

    def test_the_forward_pass_can_end_there(self):
        codec = TokenAdapter(TokenCodec(12))
        bank = TapBank(codec, {"latent": "analyse"}, "teacher")
        ran = []
        codec.module.synthesis[0].register_forward_hook(lambda *_: ran.append(1))
        output, features = bank.run(torch.rand(1, 3, 32, 48), ["latent"], stop_early=True)
        assert output is None
        assert features["latent"].shape == (1, 16, 2, 3)
        assert not ran
        assert "analyse" not in vars(codec.module)

    def test_what_is_no_method_is_said(self):
        with pytest.raises(distillkit.DistillkitError, match="no module or method 'analyze' in student TokenCodec"):
            TapBank(TokenAdapter(TokenCodec(12)), {"latent": "analyze"}, "student")

    def test_a_callable_that_does_not_suit_is_said(self):
        bank = TapBank(
            TokenAdapter(TokenCodec(12)), {"one": distillkit.Tap("layers.0", lambda out: out["x"])}, "student"
        )
        with pytest.raises(
            distillkit.DistillkitError, match=r"'one': its `read` cannot .* returned, a tuple .TypeError"
        ):
            bank.run(torch.rand(1, 3, 32, 32), ["one"])

    def test_a_tuple_needs_a_callable(self):
        bank = TapBank(TokenAdapter(TokenCodec(12)), {"first": "layers.0"}, "student")
        with pytest.raises(distillkit.DistillkitError, match=r"got tuple. Tap a module inside it, or give .* `read`"):
            bank.run(torch.rand(1, 3, 32, 32), ["first"])


def test_a_bottleneck_whose_codec_has_no_aux_loss_and_no_options_of_update():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = MeanScaleHyperprior(8, 16)
            self.compress, self.decompress = self.inner.compress, self.inner.decompress

        def forward(self, x):
            return self.inner(x)

        def update(self):
            self.inner.update(force=True)

    codec = distillkit.CompressAIAdapter(Plain())
    assert torch.equal(codec.aux_loss(), codec.module.inner.aux_loss())
    codec.update()
    assert codec.compress(torch.rand(1, 3, 64, 64)).strings


class TestWhatIsNotCompressAIsApi:
    """Of a module that has the methods, but not what they give."""

    @pytest.mark.parametrize(
        ("forward", "message"),
        [
            (lambda out: {"rec": out["x_hat"]}, "expected a dict with x_hat and likelihoods from forward, .* with rec"),
            (lambda out: (out["x_hat"],), "from forward, as CompressAI's models return it, got a tuple"),
            (lambda out: {**out, "likelihoods": [1]}, "expected likelihoods by name .*got list"),
        ],
    )
    def test_forward(self, forward, message):
        class Other(MeanScaleHyperprior):
            def forward(self, x):
                return forward(super().forward(x))

        with pytest.raises(distillkit.PairError, match=message):
            distillkit.CompressAIAdapter(Other(8, 16)).forward(torch.rand(1, 3, 64, 64))

    def test_coding(self):
        class Other(MeanScaleHyperprior):
            def compress(self, x):
                return super().compress(x)["strings"]

            def decompress(self, strings, shape):
                return super().decompress(strings, shape)["x_hat"]

        codec, images = distillkit.CompressAIAdapter(Other(8, 16)), torch.rand(1, 3, 64, 64)
        codec.update()
        with pytest.raises(distillkit.PairError, match="expected a dict with strings and shape from compress, .*list"):
            codec.compress(images)
        coded = MeanScaleHyperprior.compress(codec.module, images)
        with pytest.raises(distillkit.PairError, match="expected a dict with x_hat from decompress, .* got a Tensor"):
            codec.decompress(distillkit.CompressedLatents(coded["strings"], coded["shape"]))

    def test_another_signature_is_said_before_anything_is_trained(self):
        class Other(MeanScaleHyperprior):
            def compress(self, x, quality):
                return super().compress(x)

        with pytest.raises(
            distillkit.PairError, match=r"expected compress\(x\).*missing a required argument: 'quality'"
        ):
            distillkit.CompressAIAdapter(Other(8, 16))

    def test_a_latent_under_another_name_cannot_be_ranked(self, plugins):
        term_class, config = plugins.configure("loss", "feds.channel_entropy", {}, "test")
        latent = {"latent": distillkit.TapShape(16, 4, 4)}
        term = term_class(config, distillkit.TapShapes(latent, latent))

        def teacher(images):
            return distillkit.CodecOutput(images, {"main": torch.full((1, 16, 4, 4), 0.5)})

        with pytest.raises(distillkit.PairError, match="16 latent channels as 'y', got main"):
            term.calibrate(distillkit.Calibration(teacher, lambda number: iter([torch.rand(1, 3, 64, 64)])))

    def test_one_module_cannot_teach_itself(self):
        codec = distillkit.CompressAIAdapter(MeanScaleHyperprior(8, 16))
        with pytest.raises(distillkit.PairError, match="got two that share parameters"):
            distillkit.TeachingPair(codec, codec, ({}, {}))


def test_as_map():
    tokens = torch.arange(12.0).view(1, 6, 2)  # 2x3 positions of 2 channels
    features = as_map(tokens, (32, 48))
    assert features is not None
    assert features.tolist() == [[[[0, 2, 4], [6, 8, 10]], [[1, 3, 5], [7, 9, 11]]]]
    assert as_map(tokens, (48, 48)) is None  # no 6 positions are square
    assert as_map(tokens[:, :0], (32, 48)) is None
    assert as_map(tokens[0], (32, 48)) is None


class TestNesting:
    def test_there_and_back(self):
        flat, nesting = flatten_strings({"a": [(b"1", b"2"), {"b": [b"3", b"4"]}], "c": [b"5", b"6"]}, 2)
        assert flat == [[b"1", b"2"], [b"3", b"4"], [b"5", b"6"]]
        assert nest_strings(flat, nesting) == {"a": [[b"1", b"2"], {"b": [b"3", b"4"]}], "c": [b"5", b"6"]}
        assert not is_plain(nesting)

    def test_compressais_own(self):
        flat, nesting = flatten_strings([[b"1", b"2"], [b"3", b"4"]], 2)
        assert flat == [[b"1", b"2"], [b"3", b"4"]]
        assert is_plain(nesting)

    def test_single_strings_of_one_picture(self):
        flat, nesting = flatten_strings([b"1", b"2"], 1)
        assert flat == [[b"1"], [b"2"]]
        assert nest_strings(flat, nesting) == [b"1", b"2"]

    def test_what_is_no_string(self):
        with pytest.raises(TypeError, match="expected byte strings"):
            flatten_strings([["text"]], 1)


def test_an_adapter_may_replace_single_methods():
    class Quality(MeanScaleHyperprior):
        def compress(self, x, quality):
            return super().compress(x) | {"quality": quality}

    class Adapter(distillkit.CompressAIAdapter):
        def compress(self, images):
            out = self.module.compress(images, quality=3)
            return distillkit.CompressedLatents(out["strings"], list(out["shape"]))

    codec = Adapter(Quality(8, 16).eval())
    codec.update()
    coder, image = distillkit.ImageCodec(codec), np.zeros((64, 64, 3), np.uint8)
    assert coder.is_fast
    assert coder.decode(coder.encode(image)).shape == image.shape
