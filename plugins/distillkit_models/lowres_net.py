"""A codec whose transforms work at 1/8 resolution: every layer is a matrix product over 1/64 of the pixels."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checkerboard import checkerboard_codec
from .lowres_init import start_as_cosine_transform
from .lowres_presets import LowResSize
from .swin_block import SwinBlock

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # compressai imports torch-geometric, which scripts functions
    from compressai.models.base import SimpleVAECompressionModel

PATCH = 8  # side of the squares of pixels that become channels
WINDOW = 4  # side of an attention window on the latent: 64 pixels of the image


class LowRes(SimpleVAECompressionModel):
    """Depthwise blocks between a pixel unshuffle and a pixel shuffle, a mean-scale hyper-prior, a checkerboard context.

    `g_a` takes images of shape (B, 3, H, W), range [0, 1], H and W multiples of 64, to the latent y of shape
    (B, M, H / 16, W / 16); `g_s` takes the quantised y back. z has shape (B, hyper_width, H / 64, W / 64). The direct
    children of `g_a` and `g_s` take and return features of shape (B, C, h, w). A fresh codec is a colour and cosine
    transform, see `lowres_init`.

    Source: Jia et al. (2025), DCVC-RT, arXiv 2502.20762, for transforms at 1/8 resolution and their blocks; He et al.
    (2021), arXiv 2103.15306, for the context; Liu et al. (2022), arXiv 2111.09883, for the attention.

    Departure: DCVC-RT is a video codec with a rate control in one model; widths, activations, the attention on the
    latent and the initial transform are our choice.
    """

    downsampling_factor = 64

    def __init__(self, size: LowResSize) -> None:
        super().__init__()
        self.size = size
        self.g_a = analysis_transform(size)
        self.g_s = synthesis_transform(size)
        self.latent_codec = checkerboard_codec(size)
        start_as_cosine_transform(self)


class LowResBlock(nn.Module):
    """Mixes a neighbourhood of features, shape (B, C, h, w), then their channels; the identity when built."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(width, width, 1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.out_of = nn.Conv2d(width, width, 1)
        self.gate = nn.Conv2d(width, 4 * width, 1)
        self.merge = nn.Conv2d(2 * width, width, 1)
        for last in (self.out_of, self.merge):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape and memory format."""
        features = features + self.out_of(self.depthwise(F.leaky_relu(self.into(features), 0.1)))
        gate, value = self.gate(features).chunk(2, dim=1)
        return features + self.merge(F.silu(gate) * value)


class ChannelsLast(nn.Sequential):
    """A sequence that works on channels-last features and returns an ordinary tensor: the same values, faster."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what the layers return for an input of shape (B, C, H, W)."""
        return super().forward(input.contiguous(memory_format=torch.channels_last)).contiguous()


def analysis_transform(size: LowResSize) -> nn.Sequential:
    """Return g_a: image to y."""
    return ChannelsLast(
        nn.Sequential(nn.PixelUnshuffle(PATCH), nn.Conv2d(3 * PATCH**2, size.width, 1)),
        *(LowResBlock(size.width) for _ in range(size.blocks)),
        nn.Conv2d(size.width, size.latent, 3, stride=2, padding=1),
        *_swin_blocks(size),
    )


def synthesis_transform(size: LowResSize) -> nn.Sequential:
    """Return g_s: quantised y to image; the mirror of g_a."""
    return ChannelsLast(
        *_swin_blocks(size),
        nn.Sequential(nn.Conv2d(size.latent, 4 * size.width, 1), nn.PixelShuffle(2)),
        *(LowResBlock(size.width) for _ in range(size.blocks)),
        nn.Sequential(nn.Conv2d(size.width, 3 * PATCH**2, 1), nn.PixelShuffle(PATCH)),
    )


def _swin_blocks(size: LowResSize) -> list[nn.Module]:
    return [SwinBlock(size.latent, WINDOW, shifted=i % 2 == 1) for i in range(size.swin_depth)]
