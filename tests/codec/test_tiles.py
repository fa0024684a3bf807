"""Tiles: how far a network sees, and no seams."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import distillkit
from distillkit.codec.fast import codec as fast
from distillkit.codec.fast.tiles import find_margin, run_in_tiles
from tests.lively import coder, picture


class Shifted(nn.Module):
    """Sees two positions to the left only."""

    def forward(self, x):
        return x + F.pad(x, (2, 0, 0, 0))[..., :-2]


class Mean(nn.Module):
    def forward(self, x):
        return x + x.mean((2, 3), keepdim=True)


class Windows(nn.Module):
    """Mixes whole windows of eight positions."""

    def forward(self, x):
        rows = min(8, x.shape[2])
        cells = x.unflatten(2, (-1, rows)).unflatten(4, (-1, min(8, x.shape[3])))
        return (cells + cells.mean((3, 5), keepdim=True)).flatten(4, 5).flatten(2, 3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "align", "margin"),
    [
        (nn.Conv2d(2, 3, 1), 4, 0),
        (nn.Conv2d(2, 3, 3, padding=1), 4, 4),  # sees 1
        (nn.Conv2d(2, 3, 11, padding=5), 4, 8),  # sees 5
        (nn.Conv2d(2, 3, (3, 11), padding=(1, 5)), 2, 6),
        (nn.Sequential(*[nn.Conv2d(2, 2, 3, padding=1)] * 9), 4, 12),  # sees 9
        (nn.Conv2d(2, 3, 5, stride=2, padding=2), 8, 8),
        (nn.ConvTranspose2d(2, 3, 5, stride=2, padding=2, output_padding=1), 4, 4),
        (Shifted(), 1, 2),
        (Windows(), 8, 0),
        (Windows(), 16, 0),
        (Mean(), 4, None),
    ],
)
def test_how_far_a_network_sees(network, align, margin):
    torch.manual_seed(0)
    assert find_margin(network, 2, align) == margin


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 24), (64, 64), (8, 104)])
def test_tiles_give_the_whole(size):
    torch.manual_seed(0)
    down, up = nn.Conv2d(2, 3, 5, stride=2, padding=2), nn.ConvTranspose2d(2, 3, 5, 2, 2, 1)
    x = torch.randn(1, 2, *size)
    for network in (down, up, nn.Sequential(nn.Conv2d(2, 2, 9, padding=4), nn.GELU(), up)):
        margin = find_margin(network, 2, 8)
        assert margin == 8
        torch.testing.assert_close(run_in_tiles(network, x, 16, margin), network(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(run_in_tiles(network, x, 16, 0), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["student", "teacher"])
def test_a_picture_in_tiles_is_the_picture(part, monkeypatch):
    """Of a plain codec, and of one with shifted attention windows in both transforms."""
    codec = coder("checkerboard", precision="fp32") if part == "student" else attentive()
    image = picture(320, 650)
    whole = codec.encode(image)
    decoded = codec.decode(whole)
    calls = []
    monkeypatch.setattr(fast, "TILE_PIXELS", 192)
    np.testing.assert_array_equal(codec.decode(whole), codec.decode(whole))  # the margin is known now
    network = codec._coder.adapter.module.g_s.network
    handle = network.register_forward_hook(lambda *_: calls.append(1))
    tiled = codec.decode(whole)
    assert len(calls) == 2 * 4
    handle.remove()
    assert abs(tiled.astype(int) - decoded).max() <= 1
    assert (tiled != decoded).mean() < 1e-3
    # A latent on the edge between two integers may be rounded to either.
    assert abs(len(codec.encode(image)) - len(whole)) <= 0.001 * len(whole) + 4
    assert abs(codec.decode(codec.encode(image)).astype(int) - decoded).mean() < 0.1


def attentive() -> distillkit.ImageCodec:
    from distillkit.model.adapters import as_codec, fingerprint

    torch.manual_seed(0)
    pair = distillkit.load_plugins().get("pair", "models.cheng2020", "test")
    module = pair(pair.Config(size="tiny")).build_teacher()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)  # attention starts as the identity
            elif name.startswith("g_a") and name.endswith("weight") and parameter.ndim == 4:
                parameter.mul_(2.0)
    codec = as_codec(module.eval())
    codec.update()
    return distillkit.ImageCodec(codec, fingerprint(module), precision="fp32")
