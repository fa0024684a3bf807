"""A tap at some of its positions: enough for a loss that compares positions one by one, at a fraction of the cost."""

from __future__ import annotations

import torch
from torch import Tensor

_MARK = "@"


def sampled(role: str, stride: int) -> str:
    """Return the role of a tap's features at one position out of each cell of `stride` x `stride`.

    A loss term asks for it in `required_taps` and finds it in `Step.taps`, on both sides at the same positions, as a
    smaller map, shape (B, C, H // stride, W // stride). The place of a position in its cell changes from cell to cell,
    so that each of the phases of an upsampling layer is seen equally often.

    Args:
        role: of a tap, e.g. `synthesis.1/2`.
        stride: at least 1; 1 is the tap itself.
    """
    return f"{role}{_MARK}{stride}" if stride > 1 else role


def tap_and_stride(role: str) -> tuple[str, int]:
    """Return the tap's own role and the stride of what `sampled` returned."""
    tap, mark, stride = role.rpartition(_MARK)
    return (tap, int(stride)) if mark and stride.isdecimal() else (role, 1)


def sample(features: Tensor, stride: int) -> Tensor:
    """Return one position out of each cell, shape (B, C, H // stride, W // stride), of features (B, C, H, W)."""
    if stride == 1:
        return features
    height, width = features.shape[2] // stride, features.shape[3] // stride
    row = torch.arange(height, device=features.device)[:, None]
    column = torch.arange(width, device=features.device)[None, :]
    # Cell (i, j) gives its position (j mod stride, i mod stride): each position of a cell has its turn.
    rows, columns = row * stride + column % stride, column * stride + row % stride
    index = (rows * features.shape[3] + columns).flatten()
    if features.is_contiguous(memory_format=torch.channels_last):  # a position's channels lie together
        chosen = features.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, index)
        return chosen.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return features.flatten(2).index_select(2, index).unflatten(2, (height, width))
