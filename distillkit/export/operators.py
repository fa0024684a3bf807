"""The entropy coder's steps as operators, so that `torch.export` can trace what lies between them.

While a program is recorded, what they return has the right shape and type alone. The argument `call` tells calls of
equal arguments apart, which the tracer would make one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("distillkit::table", mutates_args=())
def table(scales: Tensor, model: int, call: int) -> Tensor:
    """Return the index of each scale's table."""
    return torch.zeros_like(scales, dtype=torch.int32)


@torch.library.custom_op("distillkit::code", mutates_args=())
def code(values: Tensor, indexes: Tensor, means: Tensor | None, model: int, to: int, rounds: bool, call: int) -> Tensor:
    """Encode values around their means, and return what the decoder will see, float64."""
    return values.to(torch.float64, copy=True)


@torch.library.custom_op("distillkit::decode", mutates_args=())
def decode(indexes: Tensor, means: Tensor | None, model: int, of: int, rounds: bool, call: int) -> Tensor:
    """Return what `code` encoded, float64."""
    return torch.zeros_like(indexes, dtype=torch.float64)


@torch.library.custom_op("distillkit::code_channels", mutates_args=())
def code_channels(values: Tensor, model: int, to: int, rounds: bool, call: int) -> Tensor:
    """As `code`, with a table and a median for each channel."""
    return values.to(torch.float64, copy=True)


@torch.library.custom_op("distillkit::decode_channels", mutates_args=())
def decode_channels(
    grid: Tensor, channels: int, rows: int, columns: int, model: int, of: int, rounds: bool, call: int
) -> Tensor:
    """Return what `code_channels` encoded; rows and columns are those of a stride of the picture."""
    return grid.new_zeros((1, channels, rows * grid.shape[2], columns * grid.shape[3]), dtype=torch.float64)


@torch.library.custom_op("distillkit::put", mutates_args=())
def put(symbols: Tensor, indexes: Tensor, model: int, to: int, call: int) -> Tensor:
    """Encode symbols in their order, and return them."""
    return symbols.clone()


@torch.library.custom_op("distillkit::take", mutates_args=())
def take(indexes: Tensor, model: int, of: int, call: int) -> Tensor:
    """Return the next symbols that `put` encoded, float64."""
    return torch.zeros_like(indexes, dtype=torch.float64)


@torch.library.custom_op("distillkit::edge", mutates_args=())
def edge(values: Tensor, is_exact: bool, call: int) -> Tensor:
    """Return the values in float64 or float32; networks end here, so that none has two number types."""
    return values.to(torch.float64 if is_exact else torch.float32, copy=True)


def _exact_like(values: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(values, dtype=torch.float64)


table.register_fake(lambda scales, *_: torch.empty_like(scales, dtype=torch.int32))
for _operator in (code, decode, code_channels, take):
    _operator.register_fake(_exact_like)
put.register_fake(lambda symbols, *_: torch.empty_like(symbols))
edge.register_fake(
    lambda values, is_exact, _: torch.empty_like(values, dtype=torch.float64 if is_exact else torch.float32)
)


@decode_channels.register_fake
def _(grid: Tensor, channels: int, rows: int, columns: int, *_: Any) -> Tensor:
    return grid.new_empty((1, channels, rows * grid.shape[2], columns * grid.shape[3]), dtype=torch.float64)
