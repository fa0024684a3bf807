"""Plain numbers in float64 networks: ONNX keeps them as float32, whose error of 1e-8 would choose another table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_COMPARED = ("gt", "ge", "lt", "le", "eq", "ne")


def with_exact_numbers() -> dict[Any, Callable[..., Any]]:
    """Return operator -> what takes its place in float64."""
    aten = torch.ops.aten
    return {
        **{operator: _with_number(operator) for operator in (aten.mul.Tensor, aten.div.Tensor)},
        **{operator: _with_term(operator) for operator in (aten.add.Tensor, aten.sub.Tensor)},
        **{getattr(aten, name).Scalar: _compared(getattr(aten, name).Tensor) for name in _COMPARED},
        aten.rsub.Scalar: _from_number,
        aten.pow.Scalar: _power_of_number,
        aten.clamp.default: _clamp,
        aten.hardtanh.default: _hardtanh,
        aten.full.default: _full,
        aten.full_like.default: _full_like,
        aten.new_full.default: _new_full,
        aten.fill.Scalar: _full_like,
        aten.where.ScalarOther: lambda condition, x, other: _where(condition, x, other, x),
        aten.where.ScalarSelf: lambda condition, number, x: _where(condition, number, x, x),
        aten.masked_fill.Scalar: lambda x, mask, number: _where(mask, number, x, x),
        aten.lerp.Scalar: _lerp,
        aten.addcmul.default: _add_product,
    }


def number_like(x: Tensor, value: float) -> Tensor:
    """Return a number in float64, shape (1,), as a sum of numbers that float32 holds."""
    total, rest = x.new_zeros((1,)), value
    for _ in range(3):
        part = float(np.float32(rest))
        total, rest = total + x.new_full((1,), part), rest - part
    return total


def _is_inexact(value: Any) -> bool:
    return isinstance(value, float) and np.isfinite(value) and float(np.float32(value)) != value


def _with_number(operator: Any) -> Callable[..., Any]:
    def exact(x: Any, other: Any, **options: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float64 or not isinstance(other, float):
            return NotImplemented
        return operator(x, number_like(x, other), **options)

    return exact


def _with_term(operator: Any) -> Callable[..., Any]:
    def exact(x: Any, other: Any, alpha: Any = 1) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float64 or not (isinstance(other, float) or alpha != 1):
            return NotImplemented
        term = number_like(x, other) if isinstance(other, float) else other
        return operator(x, term if alpha == 1 else term * number_like(x, float(alpha)))

    return exact


def _compared(operator: Any) -> Callable[..., Any]:
    def exact(x: Tensor, other: Any) -> Any:
        if x.dtype != torch.float64 or not _is_inexact(other):
            return NotImplemented
        return operator(x, number_like(x, other))

    return exact


def _from_number(x: Tensor, number: float, alpha: float = 1) -> Any:
    return NotImplemented if x.dtype != torch.float64 or alpha != 1 else number_like(x, number) - x


def _power_of_number(number: float, x: Tensor) -> Any:
    return torch.pow(number_like(x, number), x) if x.dtype == torch.float64 and _is_inexact(number) else NotImplemented


def _hardtanh(x: Tensor, least: float = -1, most: float = 1) -> Any:
    return _clamp(x, least, most)


def _clamp(x: Tensor, least: float | None = None, most: float | None = None) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    x = x if least is None else torch.maximum(x, number_like(x, least))
    return x if most is None else torch.minimum(x, number_like(x, most))


def _full(size: Sequence[Any], value: Any, **options: Any) -> Any:
    if not _is_inexact(value) or options.get("dtype") != torch.float64:
        return NotImplemented
    zeros = torch.zeros(size, dtype=torch.float64, device=options.get("device"))
    return zeros + number_like(zeros, value)


def _full_like(x: Tensor, value: Any, **options: Any) -> Any:
    if not _is_inexact(value) or (options.get("dtype") or x.dtype) != torch.float64:
        return NotImplemented
    zeros = torch.zeros_like(x, dtype=torch.float64)
    return zeros + number_like(zeros, value)


def _new_full(x: Tensor, size: Sequence[Any], value: Any, **options: Any) -> Any:
    return _full(size, value, dtype=options.get("dtype") or x.dtype, device=options.get("device") or x.device)


def _where(condition: Tensor, chosen: Any, other: Any, x: Tensor) -> Any:
    number = chosen if other is x else other
    if x.dtype != torch.float64 or not _is_inexact(number):
        return NotImplemented
    exact = number_like(x, number)
    return torch.where(condition, exact, x) if other is x else torch.where(condition, x, exact)


def _lerp(x: Tensor, end: Tensor, weight: float) -> Any:
    return x + (end - x) * number_like(x, float(weight)) if x.dtype == torch.float64 else NotImplemented


def _add_product(x: Tensor, first: Tensor, second: Tensor, value: float = 1) -> Any:
    if x.dtype != torch.float64 or not _is_inexact(value):
        return NotImplemented
    return x + first * second * number_like(x, value)
