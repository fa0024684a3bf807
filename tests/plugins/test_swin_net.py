"""The pure transformer codec: its stages, its sizes, and what a step of training reaches."""

from __future__ import annotations

import pytest
import torch
from distillkit_models.swin_net import WINDOWS, SwinCodec
from distillkit_models.swin_presets import PRESETS, SwinSize

import distillkit
from distillkit.model.adapters import CompressAIAdapter
from distillkit.model.complexity import num_parameters

SMALL = SwinSize((8, 8, 8, 16), (1, 1, 2, 1), 2, hyper_width=8, entropy_width=8, context_kernel=3)


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return SwinCodec(SMALL)


def attend(codec):
    """Norms of a fresh block are 0, which hides what it does."""
    for name, parameter in codec.named_parameters():
        if ".norm1.weight" in name or ".norm2.weight" in name:
            torch.nn.init.ones_(parameter)
    return codec


@pytest.mark.parametrize("name", PRESETS)
def test_students_are_much_smaller_and_keep_the_latent(name):
    teacher, student = PRESETS[name]
    assert student.latent == teacher.latent
    with torch.device("meta"):
        sizes = [num_parameters(SwinCodec(size)) for size in (teacher, student)]
    assert sizes[1] <= 0.4 * sizes[0]


def test_stages_halve_the_resolution(codec):
    provider = distillkit.load_plugins().get("taps", "models.by_resolution", "test")
    taps = distillkit.find_taps(codec, provider(provider.Config()), (64, 128))
    last = {"analysis.1/2": "g_a.1", "analysis.1/4": "g_a.3", "analysis.1/8": "g_a.6", "latent": "g_a"}
    assert {role: path for role, path in taps.items() if role in last} == last
    assert {"synthesis.1/8", "synthesis.1/4", "synthesis.1/2", "reconstruction"} <= set(taps)


@pytest.mark.parametrize("size", [(64, 64), (64, 192)])
def test_windows_divide_every_resolution(codec, size):
    for stage, window in enumerate(WINDOWS):
        assert size[0] // 2 ** (stage + 1) % window == 0
    images = torch.rand(1, 3, *size)
    assert codec.eval()(images)["x_hat"].shape == images.shape


def test_a_training_step_reaches_every_parameter(codec):
    codec.latent_codec.hyper.h_a[-1][1].weight.data.mul_(100)  # or z would be rounded to 0
    output = attend(codec).train()(torch.rand(1, 3, 128, 128))
    rate = -sum(likelihood.log2().sum() for likelihood in output["likelihoods"].values())
    (rate + output["x_hat"].square().sum()).backward()
    without = [name for name, p in codec.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert all(name.endswith("quantiles") for name in without), without


def test_bytes_decode_to_the_picture_that_was_coded(codec):
    attend(codec).eval().update(force=True)
    images = torch.rand(1, 3, 64, 192)
    with torch.no_grad():
        coded = codec.compress(images)
        first = codec.decompress(coded["strings"], coded["shape"])["x_hat"]
        expected = codec(images)["x_hat"]
    assert torch.allclose(first, expected.clamp(0, 1), atol=1e-4)


def test_results_do_not_depend_on_the_sizes_seen_before(codec):
    attend(codec).eval()
    images = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        before = codec(images)["x_hat"]
        codec(torch.rand(1, 3, 128, 64))
        assert torch.equal(codec(images)["x_hat"], before)


def test_the_adapter_knows_its_stride(codec):
    assert CompressAIAdapter(codec).stride == 64
