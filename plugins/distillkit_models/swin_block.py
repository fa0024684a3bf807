"""A block of the Swin Transformer V2 on feature maps of any size."""

from __future__ import annotations

import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn

CHANNELS_PER_HEAD = 32


class SwinBlock(nn.Module):
    """A Swin V2 block (cosine attention, res-post-norm) on features of shape (B, C, H, W); the identity when built.

    H and W are multiples of the window's side, otherwise of any size: windows are cut, and the mask of shifted windows
    is made, for each input, and nothing is remembered. Where one window covers the image a shift still means something:
    the mask parts what the shift brought together, so attention stays in each quarter of the image.

    The norms' scales start at 0, as in the Swin V2 authors' code, so that a fresh deep transform trains like the
    net around the attention.

    Source: Liu et al. (2022), arXiv 2111.09883.
    """

    def __init__(self, width: int, window: int, *, shifted: bool, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.block = SwinTransformerV2Block(
            width,
            input_resolution=window,
            num_heads=num_heads(width),
            window_size=window,
            shift_size=window // 2 if shifted else 0,
            always_partition=True,
            dynamic_mask=True,
            mlp_ratio=mlp_ratio,
        )
        nn.init.zeros_(self.block.norm1.weight)
        nn.init.zeros_(self.block.norm2.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape and memory format."""
        out = self.block(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out if features.is_contiguous(memory_format=torch.channels_last) else out.contiguous()


def num_heads(width: int) -> int:
    """Return the largest number of attention heads that divides `width` into 32 channels or more each."""
    return max(heads for heads in range(1, max(width // CHANNELS_PER_HEAD, 1) + 1) if width % heads == 0)
