"""Context models over the positions of a latent: masked convolutions evaluated only where they are needed."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn


@final
class MaskedContext:
    """A masked convolution at chosen positions: one gather and one matrix product over the taps that the mask keeps.

    Args:
        convolution: has a `mask` of its weight's shape; stride, dilation and groups 1, square kernel of odd side.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        mask: Any = convolution.mask
        self.margin = convolution.kernel_size[0] // 2
        self.taps = (mask[0, 0] != 0).nonzero()  # (taps, 2): row and column in the kernel
        weight = (convolution.weight * mask).detach()[:, :, self.taps[:, 0], self.taps[:, 1]]
        self.weight = weight.permute(2, 1, 0).flatten(0, 1).contiguous()  # (taps * channels, outputs)
        bias = convolution.bias
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()

    def padded_width(self, width: int) -> int:
        """Return the width of a latent of `width` with the margin on both sides."""
        return width + 2 * self.margin

    def windows(self, rows: Tensor, columns: Tensor, width: int) -> Tensor:
        """Return, for positions of shape (n,), the flat indexes of all taps in the padded latent, shape (n, taps)."""
        taps = self.taps[:, 0] * self.padded_width(width) + self.taps[:, 1]
        return (rows * self.padded_width(width) + columns)[:, None] + taps

    def __call__(self, padded: Tensor, windows: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), for a padded latent of shape (H' * W', channels)."""
        return torch.addmm(self.bias, padded[windows].flatten(1), self.weight)


def sees_only(convolution: Any, seen: Any) -> bool:
    """Return whether a module is a masked convolution whose taps, as (row, column) from the centre, are all `seen`."""
    mask, kernel = getattr(convolution, "mask", None), getattr(convolution, "kernel_size", None)
    if not isinstance(convolution, nn.Conv2d) or not isinstance(mask, Tensor) or kernel is None:
        return False
    plain = (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
    if not plain or kernel[0] != kernel[1] or kernel[0] % 2 == 0 or not bool((mask == mask[:1, :1]).all()):
        return False
    offsets = (mask[0, 0] != 0).nonzero() - kernel[0] // 2
    return all(seen(row, column, kernel[0] // 2) for row, column in offsets.tolist())
