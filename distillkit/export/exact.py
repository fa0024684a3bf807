"""Networks in float64 for runtimes whose convolutions know only float32.

What chooses the entropy coder's tables must come out the same wherever a file is decoded; in float64 rounding errors
are too small to matter (see `codec.fast`). ONNX Runtime has no convolution in float64, but it has matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .exact_functions import with_exact_functions
from .exact_numbers import with_exact_numbers


def in_float64() -> dict[Any, Callable[..., Any]]:
    """Return operator -> what takes its place in float64, for `ExportedProgram.run_decompositions`."""
    aten = torch.ops.aten
    return {
        aten.conv2d.default: _convolution,
        aten.conv_transpose2d.input: _transposed_convolution,
        aten.convolution.default: _any_convolution,
        aten.upsample_nearest2d.vec: _repeated,
        **with_exact_functions(),
        **with_exact_numbers(),
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


def _repeated(x: Tensor, size: Any, factors: Sequence[float] | None) -> Any:
    """Return nearest neighbours, by whole factors."""
    if x.dtype != torch.float64 or not factors or any(factor != int(factor) for factor in factors):
        return NotImplemented
    batch, channels, height, width = x.shape
    rows, columns = map(int, factors)
    cells = x[:, :, :, None, :, None].expand(batch, channels, height, rows, width, columns)
    return cells.reshape(batch, channels, height * rows, width * columns)


def _both(sides: Sequence[int]) -> list[int]:
    return 2 * list(sides) if len(sides) == 1 else list(sides)
