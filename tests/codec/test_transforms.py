"""Transforms as they run fastest give what the plain ones give."""

import pytest
import torch
from compressai.layers import GDN
from torch import nn

from distillkit.codec.fast.transforms import Transform
from distillkit.codec.stopwatch import Stopwatch
from tests.lively import module


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
@pytest.mark.parametrize(("factor", "bias"), [(2, True), (3, False)])
def test_pixel_unshuffle(factor, bias):
    torch.manual_seed(0)
    network = nn.Sequential(nn.PixelUnshuffle(factor), nn.Conv2d(4 * factor**2, 5, 3, padding=1, bias=bias))
    features = torch.randn(2, 4, 5 * factor, 7 * factor)
    expected = network(features)
    torch.testing.assert_close(fast(network)(features), expected)
    assert type(network[0]) is not nn.PixelUnshuffle


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


@torch.no_grad()
@pytest.mark.parametrize(("kernel", "pad", "extra"), [(5, 2, 1), (4, 1, 0), (3, 1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_upsampling_to_few_channels_is_an_ordinary_convolution(kernel, pad, extra, bias):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ConvTranspose2d(6, 3, kernel, 2, pad, extra, bias=bias))
    features = torch.randn(2, 4, 5, 7)
    expected = network(features)
    transform = fast(network)
    torch.testing.assert_close(transform(features), expected)
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in transform.modules())


@torch.no_grad()
def test_other_upsampling_is_left_alone():
    for layer in (nn.ConvTranspose2d(6, 32, 5, 2, 2, 1), nn.ConvTranspose2d(6, 3, 5, 1, 2)):
        assert any(isinstance(each, nn.ConvTranspose2d) for each in fast(nn.Sequential(layer)).modules())


@torch.no_grad()
@pytest.mark.parametrize("last", ["shuffle", "transposed"])
def test_pixels_in_bfloat16_are_differences_from_middle_grey(last):
    torch.manual_seed(0)
    upsampling = nn.ConvTranspose2d(8, 3, 5, 2, 2, 1)
    if last == "shuffle":
        upsampling = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))
    for parameter in upsampling.parameters():
        parameter.mul_(0.1)
        if parameter.ndim == 1:
            parameter.add_(0.45)
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), upsampling)
    features = torch.randn(1, 4, 16, 16)
    expected = network(features)
    assert 0.3 < expected.min() < expected.max() < 0.7
    got = Transform(network, torch.bfloat16, torch.float32, Stopwatch(), centre=0.5)(features)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 0.5 / 255
