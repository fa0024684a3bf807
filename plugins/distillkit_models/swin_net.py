"""A pure transformer codec of any size: patch merging and splitting with Swin V2 blocks, checkerboard context."""

from __future__ import annotations

import warnings
from itertools import count

import torch
from torch import Tensor, nn

from .checkerboard import checkerboard_codec
from .swin_block import SwinBlock
from .swin_presets import SwinSize

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # compressai imports torch-geometric, which scripts functions
    from compressai.models.base import SimpleVAECompressionModel

# Sides of the attention windows at 1/2, 1/4, 1/8 and 1/16 resolution; they divide every image of multiples of 64.
WINDOWS = (8, 8, 8, 4)


class SwinCodec(SimpleVAECompressionModel):
    """Shifted-window transformers as analysis and synthesis, a mean-scale hyper-prior and a checkerboard context.

    `g_a` takes images of shape (B, 3, H, W), range [0, 1], H and W multiples of 64, to the latent y of shape
    (B, M, H / 16, W / 16); `g_s` takes the quantised y back. z has shape (B, hyper_width, H / 64, W / 64). The direct
    children of `g_a` and `g_s` take and return features of shape (B, C, h, w).

    Source: Zhu et al. (2022), Transformer-based Transform Coding, ICLR, for the transforms; Liu et al. (2022), arXiv
    2111.09883, for the blocks; He et al. (2021), arXiv 2103.15306, for the context.

    Departure: Zhu et al. use Swin blocks of the first version, also in the hyper-prior, with a channel-wise context. We
    take the second version, whose norms let a fresh net be linear; small convolutions around z, which has 1/4096 of the
    pixels; and the two-pass context. No norm in patch merging: it would erase the amplitude that must be coded.
    """

    downsampling_factor = 64

    def __init__(self, size: SwinSize) -> None:
        super().__init__()
        self.size = size
        self.g_a = analysis_transform(size)
        self.g_s = synthesis_transform(size)
        self.latent_codec = checkerboard_codec(size)


class PatchEmbed(nn.Conv2d):
    """The first patch merging, which returns channels-last features: the same values, no copies in the blocks."""

    def __init__(self, width: int) -> None:
        super().__init__(3, width, kernel_size=2, stride=2)

    def forward(self, input: Tensor) -> Tensor:
        """Return features of shape (B, C, H / 2, W / 2) for an image of shape (B, 3, H, W)."""
        return super().forward(input).contiguous(memory_format=torch.channels_last)


class SynthesisTransform(nn.Sequential):
    """A sequence of blocks that works on channels-last features and returns an ordinary image of shape (B, 3, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the image for quantised latents of shape (B, M, H / 16, W / 16)."""
        return super().forward(input.contiguous(memory_format=torch.channels_last)).contiguous()


def analysis_transform(size: SwinSize) -> nn.Sequential:
    """Return g_a: image to y; each stage merges 2x2 patches, then attends."""
    layers: list[nn.Module] = []
    blocks = count()
    for stage, width in enumerate(size.widths):
        merge = nn.Conv2d(size.widths[stage - 1], width, kernel_size=2, stride=2) if stage else PatchEmbed(width)
        layers += [merge, *_swin_blocks(size, stage, blocks)]
    return nn.Sequential(*layers)


def synthesis_transform(size: SwinSize) -> nn.Sequential:
    """Return g_s: quantised y to image; the mirror of g_a: each stage attends, then splits into 2x2 patches."""
    layers: list[nn.Module] = []
    blocks = count()
    for stage in reversed(range(len(size.widths))):
        out = size.widths[stage - 1] if stage else 3
        split = nn.Sequential(nn.Conv2d(size.widths[stage], 4 * out, 1), nn.PixelShuffle(2))
        layers += [*_swin_blocks(size, stage, blocks), split]
    return SynthesisTransform(*layers)


def _swin_blocks(size: SwinSize, stage: int, blocks: count[int]) -> list[nn.Module]:
    """Return the blocks of a stage; unshifted and shifted windows alternate through the whole transform."""
    return [
        SwinBlock(size.widths[stage], WINDOWS[stage], shifted=next(blocks) % 2 == 1, mlp_ratio=size.mlp_ratio)
        for _ in range(size.depths[stage])
    ]
