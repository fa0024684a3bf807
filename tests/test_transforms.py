"""Transforms as they run fastest give what the plain ones give."""

import pytest
import torch
from compressai.layers import GDN
from torch import nn

from distillkit.codec.stopwatch import Stopwatch
from distillkit.codec.transforms import Transform

from .lively import module


def fast(network, dtype=torch.float32):
    return Transform(network, dtype, torch.float32, Stopwatch())


@torch.no_grad()
@pytest.mark.parametrize("inverse", [False, True])
def test_normalisation(inverse):
    torch.manual_seed(0)
    layer, features = GDN(6, inverse=inverse), torch.randn(2, 6, 5, 7)
    layer.gamma.add_(0.1 * torch.rand(6, 6))
    expected = layer(features)
    got = fast(nn.Sequential(layer))(features)
    assert type(layer) is GDN
    torch.testing.assert_close(got, expected)


@torch.no_grad()
@pytest.mark.parametrize(("factor", "bias"), [(2, True), (3, False)])
def test_pixel_shuffle(factor, bias):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 5 * factor**2, 3, padding=1, bias=bias), nn.PixelShuffle(factor))
    features = torch.randn(2, 4, 5, 7)
    expected = network(features)
    torch.testing.assert_close(fast(network)(features), expected)
    assert type(network[1]) is not nn.PixelShuffle


@torch.no_grad()
@pytest.mark.parametrize("kind", ["checkerboard", "mean-scale", "raster-scan"])
def test_whole_transforms(kind):
    codec = module(kind)
    images = torch.rand(1, 3, 64, 128)
    latents = codec.g_a(images)
    pixels = codec.g_s(latents)
    torch.testing.assert_close(fast(codec.g_a)(images), latents, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fast(codec.g_s)(latents), pixels, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_bfloat16_but_for_the_last_block():
    seen = []
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    for layer in network:
        layer.register_forward_hook(lambda _, args, out: seen.append((args[0].dtype, out.dtype)))
    images = torch.rand(1, 3, 16, 16)
    expected = network(images)
    seen.clear()
    got = fast(network, torch.bfloat16)(images)
    assert seen == [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)]
    assert got.dtype == torch.float32
    assert 0 < (got - expected).abs().max() < 0.02
