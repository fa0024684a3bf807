"""Networks in float64 for runtimes whose convolutions know only float32.

What chooses the entropy coder's tables must come out the same wherever a file is decoded; in float64 rounding errors
are too small to matter (see `codec.fast`). ONNX Runtime has no convolution, leaky ReLU or error function in float64,
but it has matrix products and exponentials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_CENTRE = 3.75  # of the map of [0, inf) to [-1, 1) on which exp(x^2) erfc(x) is a polynomial
_DEGREE = 30


def in_float64() -> dict[Any, Callable[..., Any]]:
    """Return operator -> what takes its place in float64, for `ExportedProgram.run_decompositions`."""
    aten = torch.ops.aten
    _coefficients()  # not while tensors are traced
    return {
        aten.conv2d.default: _convolution,
        aten.conv_transpose2d.input: _transposed_convolution,
        aten.convolution.default: _any_convolution,
        aten.leaky_relu.default: _leaky_relu,
        aten.erf.default: _erf,
        aten.gelu.default: _gelu,
        aten.silu.default: _silu,
        aten.softplus.default: _softplus,
        **{operator: _with_number(operator) for operator in (aten.mul.Tensor, aten.div.Tensor)},
        **{operator: _with_number(operator) for operator in (aten.add.Tensor, aten.sub.Tensor)},
        aten.rsub.Scalar: _from_number,
        aten.clamp.default: _clamp,
        aten.hardtanh.default: _hardtanh,
    }


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Any:
    """Return a convolution as a sum of one matrix product for each row of its kernel."""
    if x.dtype != torch.float64 or x.ndim != 4:
        return NotImplemented
    pad = _both(padding)
    return _products(x, weight, bias, _both(stride), [pad[1], pad[1], pad[0], pad[0]], _both(dilation), groups)


def _transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> Any:
    """Return a transposed convolution: zeros between pixels, then an ordinary one with its kernel turned."""
    if x.dtype != torch.float64 or x.ndim != 4:
        return NotImplemented
    stride, padding, extra, dilation = (_both(sides) for sides in (stride, padding, output_padding, dilation))
    turned = weight.flip(2, 3).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    pad: list[int] = []
    for axis in (1, 0):
        reach = dilation[axis] * (weight.shape[2 + axis] - 1) - padding[axis]
        pad += [reach, reach + extra[axis] - stride[axis] + 1]  # spreading leaves stride - 1 zeros behind the last
    return _products(_spread(x, *stride), turned, bias, [1, 1], pad, dilation, groups)


def _any_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    extra: Any,
    groups: int,
) -> Any:
    if transposed:
        return _transposed_convolution(x, weight, bias, stride, padding, extra, groups, dilation)
    return _convolution(x, weight, bias, stride, padding, dilation, groups)


def _products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    pad: list[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Return the sum, shape (B, C', H', W'), over the kernel's rows, of shifted features times weights."""
    rows, columns = weight.shape[2:]
    x = F.pad(x, pad).permute(0, 2, 3, 1)
    height = (x.shape[1] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    if columns > 1 or stride[1] > 1:  # beside each position, all that the kernel's columns see
        first = stride[1] * torch.arange(width, device=x.device)
        places = first[:, None] + dilation[1] * torch.arange(columns, device=x.device)
        x = x.index_select(2, places.flatten())
    x = x.unflatten(2, (width, columns)).unflatten(4, (groups, -1)).transpose(3, 4).flatten(4)  # (B, H, W', groups, n)
    kernels = weight.unflatten(0, (groups, -1)).permute(3, 0, 4, 2, 1).flatten(2, 3)  # (rows, groups, n, outputs)
    total: Any = None
    for row in range(rows):
        top = row * dilation[0]
        part = x[:, top : top + (height - 1) * stride[0] + 1 : stride[0]]
        product = part[:, :, :, 0] @ kernels[row, 0] if groups == 1 else (part[..., None, :] @ kernels[row]).squeeze(4)
        total = product if total is None else total + product
    total = total if groups == 1 else total.flatten(3)
    if bias is not None:
        total = total + bias
    return total.permute(0, 3, 1, 2)


def _spread(x: Tensor, rows: int, columns: int) -> Tensor:
    """Put zeros between pixels, and as many behind the last."""
    if (rows, columns) == (1, 1):
        return x
    batch, channels, height, width = x.shape
    cells = F.pad(x[..., None, None], (0, columns - 1, 0, rows - 1))  # (B, C, H, W, rows, columns)
    return cells.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels, height * rows, width * columns)


def _leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    return torch.where(x > 0, x, x * _number(x, negative_slope))


def _gelu(x: Tensor, approximate: str = "none") -> Any:
    if x.dtype != torch.float64 or approximate != "none":
        return NotImplemented
    half = _number(x, 0.5)
    return x * half * _complement(x * _number(x, -math.sqrt(0.5)))


def _erf(x: Tensor) -> Any:
    return NotImplemented if x.dtype != torch.float64 else _number(x, 1.0) - _complement(x)


def _silu(x: Tensor) -> Any:
    return NotImplemented if x.dtype != torch.float64 else x * torch.sigmoid(x)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    scaled = x * _number(x, float(beta))
    soft = torch.log(_number(x, 1.0) + torch.exp(scaled)) / _number(x, float(beta))
    return torch.where(scaled > threshold, x, soft)


def _complement(x: Tensor) -> Tensor:
    """Return 1 - erf(x) to some 1e-15: exp(-x^2) times a polynomial (Clenshaw's recurrence) of a bounded variable."""
    size = torch.abs(x)
    centre = _number(x, _CENTRE)
    place = (size - centre) / (size + centre)
    double = place + place
    first = second = torch.zeros_like(x)
    coefficients = _coefficients()
    for coefficient in coefficients[:0:-1]:
        first, second = double * first - second + _number(x, coefficient), first
    scaled = place * first - second + _number(x, coefficients[0])
    tail = torch.exp(-(size * size)) * scaled
    return torch.where(x < 0, _number(x, 2.0) - tail, tail)


@cache
def _coefficients() -> list[float]:
    """Return the Chebyshev coefficients of exp(x^2) erfc(x), with x = centre (1 + t) / (1 - t)."""

    def value(t: Any) -> Any:
        x = _CENTRE * (1 + t) / (1 - t)
        return torch.special.erfcx(torch.from_numpy(np.asarray(x, np.float64))).numpy()

    return np.polynomial.chebyshev.chebinterpolate(value, _DEGREE).tolist()


def _with_number(operator: Any) -> Callable[..., Any]:
    def exact(x: Any, other: Any, **options: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float64 or not isinstance(other, float):
            return NotImplemented
        return operator(x, _number(x, other), **options)

    return exact


def _from_number(x: Tensor, number: float, alpha: float = 1) -> Any:
    return NotImplemented if x.dtype != torch.float64 or alpha != 1 else _number(x, number) - x


def _hardtanh(x: Tensor, least: float = -1, most: float = 1) -> Any:
    return _clamp(x, least, most)


def _clamp(x: Tensor, least: float | None = None, most: float | None = None) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    x = x if least is None else torch.maximum(x, _number(x, least))
    return x if most is None else torch.minimum(x, _number(x, most))


def _number(x: Tensor, value: float) -> Tensor:
    """Return a number in float64, shape (1,), as a sum of numbers that float32 holds: ONNX keeps no others."""
    total, rest = x.new_zeros((1,)), value
    for _ in range(3):
        part = float(np.float32(rest))
        total, rest = total + x.new_full((1,), part), rest - part
    return total


def _both(sides: Sequence[int]) -> list[int]:
    return 2 * list(sides) if len(sides) == 1 else list(sides)
