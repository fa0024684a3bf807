"""Winograd's convolutions against torch's own."""

import pytest
import torch
from torch import nn

from distillkit.codec.fast.winograd import WinogradConvolution, use_winograd


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (4, 4), (9, 13)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(size, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 3, padding=1, bias=bias).double()
    features = torch.randn(2, 5, *size, dtype=torch.float64)
    torch.testing.assert_close(WinogradConvolution(layer)(features), layer(features), rtol=0, atol=1e-13)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [(5, 2, 1), (3, 1, 1)])
def test_networks_give_the_same(kernel):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.ConvTranspose2d(4, 6, kernel[0], 2, kernel[1], kernel[2]),
        nn.LeakyReLU(),
        nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.PixelShuffle(2)),
        nn.Conv2d(2, 3, 3, padding=1, stride=2),
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ).double()
    features = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    expected = network(features)
    use_winograd(network)
    torch.testing.assert_close(network(features), expected, rtol=0, atol=1e-13)
    assert [type(layer) for layer in network.modules()].count(WinogradConvolution) == 2
    assert type(network[3]) is type(network[4]) is type(network[5]) is type(network[6]) is nn.Conv2d
