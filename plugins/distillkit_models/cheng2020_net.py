"""A Cheng2020-style codec of any size: residual transforms, Swin V2 blocks where asked for, checkerboard context."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .checkerboard import checkerboard_codec
from .cheng2020_presets import Cheng2020Size
from .swin_block import SwinBlock

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # compressai imports torch-geometric, which scripts functions
    from compressai.layers import (
        ResidualBlock,
        ResidualBlockUpsample,
        ResidualBlockWithStride,
        conv3x3,
        subpel_conv3x3,
    )
    from compressai.models.base import SimpleVAECompressionModel

WINDOW_EIGHTH = 8  # side of an attention window at 1/8 resolution: 64 pixels of the image
WINDOW_LATENT = 4  # the same 64 pixels on the latent
# oneDNN corrupts the heap in the backward pass of strided 1x1 convolutions of channels-last input with fewer channels.
CHANNELS_LAST_FROM = 16


class Cheng2020(SimpleVAECompressionModel):
    """Residual analysis and synthesis transforms, a mean-scale hyper-prior and a checkerboard context.

    `g_a` takes images of shape (B, 3, H, W), range [0, 1], H and W multiples of 64, to the latent y of shape
    (B, M, H / 16, W / 16); `g_s` takes the quantised y back. z has shape (B, hyper_width, H / 64, W / 64). The direct
    children of `g_a` and `g_s` are whole blocks. With `swin_depth` 0, `blocks` 1 and N = M = hyper_width =
    entropy_width this is the Cheng2020 anchor with He's two-pass context, apart from the borders of the hyper-prior.

    Source: Cheng et al. (2020), arXiv 2001.01568; the context: He et al. (2021), arXiv 2103.15306; the attention: Liu
    et al. (2022), arXiv 2111.09883.

    Departure: the places of the attention and every width are our choice; FEDS publishes neither.
    """

    downsampling_factor = 64

    def __init__(self, size: Cheng2020Size) -> None:
        super().__init__()
        self.size = size
        self.g_a = analysis_transform(size)
        self.g_s = synthesis_transform(size)
        self.latent_codec = checkerboard_codec(size)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> Cheng2020:
        """Return a new model of the size that `state_dict` holds, loaded strictly, the coder's tables included."""
        net = cls(size_of(state_dict))
        net.load_state_dict(dict(state_dict))
        return net


class FirstBlock(ResidualBlockWithStride):
    """The block that reads the image and returns channels-last features: the same values, faster convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features of shape (B, N, H / 2, W / 2) for an image of shape (B, 3, H, W)."""
        features = super().forward(x)
        if features.shape[1] < CHANNELS_LAST_FROM:
            return features
        return features.contiguous(memory_format=torch.channels_last)


class SynthesisTransform(nn.Sequential):
    """A sequence of blocks that works on channels-last features and returns an ordinary image of shape (B, 3, H, W)."""

    def forward(self, y_hat: Tensor) -> Tensor:
        """Return the image for quantised latents of shape (B, M, H / 16, W / 16)."""
        return super().forward(y_hat.contiguous(memory_format=torch.channels_last)).contiguous()


def analysis_transform(size: Cheng2020Size) -> nn.Sequential:
    """Return g_a: image to y; a block that halves the resolution, residual blocks and, late, attention."""
    n, m = size.width, size.latent
    return nn.Sequential(
        FirstBlock(3, n),
        *_residual_blocks(size, n, 2),
        ResidualBlockWithStride(n, n),
        *_residual_blocks(size, n, 4),
        ResidualBlockWithStride(n, n),
        *_residual_blocks(size, n, 8),
        *_swin_blocks(size, n, WINDOW_EIGHTH),
        conv3x3(n, m, stride=2),
        *_swin_blocks(size, m, WINDOW_LATENT),
    )


def synthesis_transform(size: Cheng2020Size) -> nn.Sequential:
    """Return g_s: quantised y to image; the mirror of g_a."""
    n, m = size.width, size.latent
    return SynthesisTransform(
        *_swin_blocks(size, m, WINDOW_LATENT),
        *_residual_blocks(size, m, 16),  # M channels wide: N at this resolution would throttle what the latent carries
        ResidualBlockUpsample(m, n),
        *_swin_blocks(size, n, WINDOW_EIGHTH),
        *_residual_blocks(size, n, 8),
        ResidualBlockUpsample(n, n),
        *_residual_blocks(size, n, 4),
        ResidualBlockUpsample(n, n),
        *_residual_blocks(size, n, 2),
        subpel_conv3x3(n, 3, 2),
    )


def size_of(state_dict: Mapping[str, Tensor]) -> Cheng2020Size:
    """Return the size of the codec whose weights `state_dict` holds."""
    context = state_dict["latent_codec.y.context_prediction.weight"]
    analysis = [name for name in state_dict if name.startswith("g_a.")]
    num_attention = sum(name.endswith(".logit_scale") for name in analysis)
    stages = [int(name.split(".")[1]) for name in analysis if name.endswith(".gdn.beta")]  # these halve the resolution
    blocks = [int(name.split(".")[1]) for name in analysis if name.endswith(".conv1.weight")]
    blocks = [index for index in blocks if index not in stages]
    first_stage = sum(index < min(blocks) for index in stages) if blocks else 1
    return Cheng2020Size(
        width=state_dict["g_a.0.conv1.weight"].shape[0],
        latent=context.shape[1],
        blocks=len(blocks) // (len(stages) + 1 - first_stage),
        swin_depth=num_attention // 2,
        hyper_width=state_dict["latent_codec.hyper.h_a.0.1.weight"].shape[0],
        entropy_width=context.shape[0] // 2,
        context_kernel=context.shape[-1],
        blocks_from=2**first_stage,
    )


def _residual_blocks(size: Cheng2020Size, width: int, reduction: int) -> list[nn.Module]:
    return [ResidualBlock(width, width) for _ in range(size.blocks if reduction >= size.blocks_from else 0)]


def _swin_blocks(size: Cheng2020Size, width: int, window: int) -> list[nn.Module]:
    return [SwinBlock(width, window, shifted=i % 2 == 1) for i in range(size.swin_depth)]
