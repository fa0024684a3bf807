"""Networks in float64 for runtimes whose convolutions know only float32.

What chooses the entropy coder's tables must come out the same wherever a file is decoded; in float64 rounding errors
are too small to matter (see `codec.fast`). ONNX Runtime has no convolutions in float64, but it has matrix products.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PairError

_CENTRE = 3.75  # of the map of [0, inf) to [-1, 1)
_DEGREE = 30


def in_float64(network: nn.Module) -> nn.Module:
    """Return a copy of a network that takes and returns float64, its convolutions made of matrix products.

    Raises:
        PairError: a convolution has groups or dilation.
    """
    return _replace(copy.deepcopy(network).eval().double())


def _replace(module: nn.Module) -> nn.Module:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return _Convolution(module)
    if isinstance(module, nn.LeakyReLU):
        return _LeakyRelu(module.negative_slope)
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return _Gelu()
    for name, child in list(module.named_children()):
        setattr(module, name, _replace(child))
    return module


class _Convolution(nn.Module):
    """A convolution, or a transposed one, as a sum of one matrix product for each place in its kernel."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        if layer.groups != 1 or tuple(layer.dilation) != (1, 1) or isinstance(layer.padding, str):
            raise PairError(
                f"layer {layer}: expected a convolution without groups or dilation and with its padding in pixels; "
                "deploy the codec as one safetensors file with `--to model`."
            )
        rows, columns = layer.kernel_size
        pad, stride = layer.padding, layer.stride
        weight = layer.weight.detach()
        if isinstance(layer, nn.ConvTranspose2d):  # zeros between pixels, then an ordinary one with its kernel turned
            weight = weight.flip(2, 3).transpose(0, 1)
            extra = layer.output_padding
            self.spread, self.stride = stride, (1, 1)
            left, top = columns - 1 - pad[1], rows - 1 - pad[0]
            # Spreading leaves stride - 1 zeros after the last pixel.
            self.pad = (left, left + int(extra[1]) - stride[1] + 1, top, top + int(extra[0]) - stride[0] + 1)
        else:
            self.spread, self.stride = (1, 1), stride
            self.pad = (int(pad[1]), int(pad[1]), int(pad[0]), int(pad[0]))
        self.kernel = (rows, columns)
        self.weight = nn.Parameter(
            weight.permute(2, 3, 1, 0).contiguous(), requires_grad=False
        )  # (rows, columns, in, out)
        bias = layer.bias.detach() if layer.bias is not None else weight.new_zeros(weight.shape[0])
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x, shape (1, C, H, W)."""
        x = _spread(x, *self.spread)
        x = F.pad(x, self.pad).permute(0, 2, 3, 1)
        height = (x.shape[1] - self.kernel[0]) // self.stride[0] + 1
        width = (x.shape[2] - self.kernel[1]) // self.stride[1] + 1
        total = self.bias
        for row in range(self.kernel[0]):
            for column in range(self.kernel[1]):
                last_row, last_column = row + (height - 1) * self.stride[0], column + (width - 1) * self.stride[1]
                part = x[:, row : last_row + 1 : self.stride[0], column : last_column + 1 : self.stride[1]]
                total = total + part @ self.weight[row, column]
        return total.permute(0, 3, 1, 2)


class _LeakyRelu(nn.Module):
    slope: Tensor

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float64))  # a number would be float32 in ONNX

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.slope)


class _Gelu(nn.Module):
    """GELU without the error function, which ONNX Runtime does not have in float64, to some 1e-15.

    1 - erf(x) is exp(-x^2) times a function without features, a polynomial of (x - c) / (x + c); Clenshaw's recurrence.
    """

    coefficients: Tensor
    numbers: Tensor

    def __init__(self) -> None:
        super().__init__()

        def scaled(t: Any) -> Any:
            x = _CENTRE * (1 + t) / (1 - t)
            return torch.special.erfcx(torch.from_numpy(np.asarray(x, np.float64))).numpy()

        fitted = np.polynomial.chebyshev.chebinterpolate(scaled, _DEGREE)
        self.register_buffer("coefficients", torch.from_numpy(fitted))
        numbers = [_CENTRE, math.sqrt(0.5), 0.5, 2.0]  # numbers in code would be float32 in ONNX
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Return x times half of 1 + erf(x / sqrt 2)."""
        centre, root, half, two = self.numbers[0], self.numbers[1], self.numbers[2], self.numbers[3]
        size = torch.abs(x) * root
        place = (size - centre) / (size + centre)
        first = second = torch.zeros_like(x)
        for index in range(len(self.coefficients) - 1, 0, -1):
            first, second = two * place * first - second + self.coefficients[index], first
        tail = torch.exp(-(size * size)) * (place * first - second + self.coefficients[0])
        return x * half * torch.where(x < 0, tail, two - tail)


def _spread(x: Tensor, rows: int, columns: int) -> Tensor:
    """Put zeros between pixels, and as many after the last."""
    if (rows, columns) == (1, 1):
        return x
    batch, channels, height, width = x.shape
    cells = F.pad(x[..., None, None], (0, columns - 1, 0, rows - 1))  # (B, C, H, W, rows, columns)
    return cells.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels, height * rows, width * columns)
