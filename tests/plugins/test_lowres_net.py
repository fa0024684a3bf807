"""The low-resolution codec: what a fresh one is, its sizes, and what a step of training reaches."""

from __future__ import annotations

import pytest
import torch
from distillkit_models.lowres_net import LowRes, LowResBlock
from distillkit_models.lowres_presets import PRESETS, LowResSize

import distillkit
from distillkit.model.complexity import num_parameters

SMALL = LowResSize(width=24, latent=32, blocks=1, swin_depth=0, hyper_width=8, entropy_width=8)
WIDE = LowResSize(width=208, latent=192, blocks=1, swin_depth=2, hyper_width=8, entropy_width=8)
STUDENTS = [pair[1] for pair in PRESETS.values()]


def smooth_pictures(height: int = 64, width: int = 128) -> torch.Tensor:
    """Pictures of soft blobs of little colour, as photographs are, shape (2, 3, height, width)."""
    generator = torch.Generator().manual_seed(0)
    grey, colours = (torch.rand(2, n, height // 16, width // 16, generator=generator) for n in (1, 3))
    return torch.nn.functional.interpolate(0.8 * grey + 0.2 * colours, (height, width), mode="bicubic").clamp(0, 1)


def test_z_of_a_small_crop_is_that_of_a_large_picture():
    """Where a picture does not change, z does not depend on how near the border is."""
    torch.manual_seed(0)
    analysis, latent = LowRes(SMALL).latent_codec.hyper.h_a, torch.randn(1, 32, 1, 1)
    with torch.no_grad():
        small, large = (analysis(latent.expand(-1, -1, side, side)) for side in (8, 40))
    assert small.std() > 0.01
    assert torch.allclose(large, small[..., :1, :1].expand_as(large), atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_students_are_much_smaller_and_keep_the_latent(name):
    teacher, student = PRESETS[name]
    assert student.latent == teacher.latent
    assert student.swin_depth == 0 < teacher.swin_depth
    assert num_parameters(LowRes(student)) <= 0.37 * num_parameters(LowRes(teacher))


@pytest.mark.parametrize("size", [SMALL, WIDE, *STUDENTS[:2]])
def test_a_fresh_codec_is_a_transform_codec(size):
    torch.manual_seed(0)
    codec, images = LowRes(size).eval(), smooth_pictures()
    with torch.no_grad():
        y = codec.g_a(images)
        restored, rounded = codec.g_s(y), codec.g_s(y.round())
    assert (restored - images).square().mean() < 1e-3
    assert (rounded - images).square().mean() < 2e-3
    assert y.std() > 0.3  # of the quantiser's steps: most of it survives rounding


def test_a_wide_enough_fresh_codec_loses_nothing():
    """With every coefficient kept, synthesis undoes analysis exactly, on noise too."""
    codec = LowRes(LowResSize(width=192, latent=768, blocks=1, swin_depth=1, hyper_width=8, entropy_width=8)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        y = codec.g_a(images)
        assert torch.allclose(codec.g_s(y), images, atol=1e-4)
        # Orthonormal: a grey picture's energy is that of its squares' means alone
        assert (y * 45 / 255).square().sum() == pytest.approx((images - 0.5).square().sum().item(), rel=1e-4)


def test_a_fresh_block_is_the_identity_and_learns():
    torch.manual_seed(0)
    block, features = LowResBlock(8), torch.randn(1, 8, 6, 6)
    assert torch.equal(block(features), features)
    optimizer = torch.optim.SGD(block.parameters(), 0.1)
    for _ in range(2):  # the first step opens the last layers, the second reaches the others
        optimizer.zero_grad()
        block(features).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in block.parameters())


@pytest.mark.parametrize("size", [SMALL, WIDE])
def test_a_training_step_reaches_every_parameter(size):
    torch.manual_seed(0)
    codec = LowRes(size).train()
    for block in codec.modules():
        if isinstance(block, LowResBlock):
            for layer in (block.out_of, block.merge):
                torch.nn.init.normal_(layer.weight, std=0.1)
        if hasattr(block, "norm1"):
            torch.nn.init.ones_(block.norm1.weight)
            torch.nn.init.ones_(block.norm2.weight)
    codec.latent_codec.hyper.h_a[-1][1].weight.data.mul_(100)  # or z would be rounded to 0
    output = codec(torch.rand(1, 3, 128, 128))
    rate = -sum(likelihood.log2().sum() for likelihood in output["likelihoods"].values())
    (rate + output["x_hat"].square().sum()).backward()
    without = [name for name, p in codec.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert all(name.endswith("quantiles") for name in without), without


def test_taps_are_the_ends_of_the_stages():
    provider = distillkit.load_plugins().get("taps", "models.by_resolution", "test")
    taps = distillkit.find_taps(LowRes(SMALL), provider(provider.Config()), (64, 128))
    expected = {"analysis.1/8": "g_a.1", "latent": "g_a", "synthesis.1/8": "g_s.1", "reconstruction": "g_s"}
    assert {role: path for role, path in taps.items() if role in expected} == expected


def test_bytes_decode_to_the_picture_that_was_coded():
    torch.manual_seed(0)
    codec, images = LowRes(WIDE).eval(), smooth_pictures()[:1]
    codec.update(force=True)
    with torch.no_grad():
        coded = codec.compress(images)
        first = codec.decompress(coded["strings"], coded["shape"])["x_hat"]
        assert torch.allclose(first, codec(images)["x_hat"].clamp(0, 1), atol=1e-4)
