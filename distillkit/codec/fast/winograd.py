"""3x3 convolutions in float64 by Winograd's algorithm: 4 times fewer multiplications, results equal to 1e-14.

The networks that choose the entropy coder's tables are computed in float64 (`fast`), where a processor multiplies at
half of float32's speed and torch has no library of convolutions. Float64's precision leaves room for the algorithm,
whose rounding errors forbid it in low precision.

Source: Lavin and Gray (2015), arXiv 1509.09308: F(4x4, 3x3).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import as_convolution, doubles_size

_INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
          [0, 4, 0, -5, 0, 1]]  # fmt: skip
_KERNEL = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
           [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


@final
class WinogradConvolution(nn.Module):
    """A convolution of a 3x3 kernel, stride 1 and a margin of one zero, in float64.

    Args:
        convolution: has these properties and no groups.
    """

    inward: Tensor
    weight: Tensor
    outward: Tensor
    bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        matrices = [torch.tensor(matrix, dtype=torch.float64) for matrix in (_INPUT, _KERNEL, _OUTPUT)]
        inward, kernel, outward = (torch.kron(matrix, matrix) for matrix in matrices)  # for rows and columns at once
        weight = convolution.weight.detach().double().cpu()
        self.register_buffer("inward", inward)
        self.register_buffer(
            "weight", (kernel @ weight.flatten(2).permute(2, 0, 1).flatten(1)).view(36, *weight.shape[:2])
        )
        self.register_buffer("outward", outward)
        self.register_buffer("bias", None if convolution.bias is None else convolution.bias.detach().double().cpu())

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (B, O, H, W), for x of shape (B, C, H, W)."""
        batch, channels, height, width = x.shape
        padded = F.pad(x.double(), (1, 1 + -width % 4, 1, 1 + -height % 4))
        tiles = padded.unfold(2, 6, 4).unfold(3, 6, 4)  # (B, C, tile rows, tile columns, 6, 6)
        rows, columns = tiles.shape[2:4]
        values = self.inward @ tiles.permute(4, 5, 1, 0, 2, 3).reshape(36, -1)
        products = self.weight @ values.view(36, channels, -1)
        out = (self.outward @ products.flatten(1)).view(4, 4, -1, batch, rows, columns)
        if self.bias is not None:
            out += self.bias[:, None, None, None]
        return out.permute(3, 2, 4, 0, 5, 1).reshape(batch, -1, 4 * rows, 4 * columns)[:, :, :height, :width]


def use_winograd(module: nn.Module) -> None:
    """Replace the convolutions inside that it can compute, and transposed ones that double the size."""
    for parent in list(module.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if doubles_size(child):
                upsampling = as_convolution(child)
                setattr(parent, name, upsampling)
                first: Any = upsampling[0]
                if _is_3x3(first):
                    upsampling[0] = WinogradConvolution(first)
            elif _is_3x3(child):
                setattr(parent, name, WinogradConvolution(child))


def _is_3x3(layer: Any) -> bool:
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros":
        return False
    return (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups) == (
        (3, 3), (1, 1), (1, 1), (1, 1), 1,
    )  # fmt: skip
