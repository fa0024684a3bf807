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


@final
class CheckerboardContext(nn.Module):
    """The context of a checkerboard codec, at half of the positions; elsewhere the convolution's value is its bias.

    It is called on a latent that is 0 but for anchors (or 0 everywhere), of which its mask sees those next to
    non-anchors only: so nothing but the order of sums differs from the convolution.

    Source: He et al. (2021), arXiv 2103.15306.
    """

    def __init__(self, convolution: nn.Conv2d, anchor_parity: str) -> None:
        super().__init__()
        self._context = MaskedContext(convolution)
        self._non_anchor = 1 if anchor_parity == "even" else 0

    def forward(self, y_hat: Tensor) -> Tensor:
        """Return the context, shape (B, outputs, H, W), of anchors, shape (B, C, H, W)."""
        batch, channels, height, width = y_hat.shape
        context, margin = self._context, self._context.margin
        out = context.bias.repeat(batch, height * width, 1)
        if bool(y_hat.any()):
            padded = nn.functional.pad(y_hat, [margin] * 4).permute(0, 2, 3, 1).reshape(batch, -1, channels)
            grid = torch.arange(height * width, device=y_hat.device)
            rows, columns = grid // width, grid % width
            chosen = (rows + columns) % 2 == self._non_anchor
            windows = context.windows(rows[chosen], columns[chosen], width)
            for image, image_padded in zip(out, padded, strict=True):
                image[chosen] = context(image_padded, windows)
        return out.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


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
