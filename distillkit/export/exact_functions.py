"""Activations in float64, of what ONNX Runtime has in float64: exponentials, products and choices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .exact_numbers import number_like


def with_exact_functions() -> dict[Any, Callable[..., Any]]:
    """Return operator -> what takes its place in float64."""
    aten = torch.ops.aten
    return {
        aten.leaky_relu.default: _leaky_relu,
        aten.gelu.default: _gelu,
        aten.silu.default: _silu,
        aten.softplus.default: _softplus,
        aten.elu.default: _elu,
        aten.celu.default: _celu,
        aten.selu.default: _selu,
        aten.prelu.default: _prelu,
        aten.hardsigmoid.default: _hardsigmoid,
        aten.hardswish.default: _hardswish,
        aten.mish.default: _mish,
    }


def _leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    return torch.where(x > 0, x, x * number_like(x, negative_slope))


def _gelu(x: Tensor, approximate: str = "none") -> Any:
    if x.dtype != torch.float64 or approximate != "tanh":
        return NotImplemented  # the other one is an error function's, see `error_functions`
    cubed = x + x * x * x * number_like(x, 0.044715)
    bounded = torch.tanh(cubed * number_like(x, math.sqrt(2 / math.pi)))
    return x * number_like(x, 0.5) * (number_like(x, 1.0) + bounded)


def _silu(x: Tensor) -> Any:
    return NotImplemented if x.dtype != torch.float64 else x * torch.sigmoid(x)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    scaled = x * number_like(x, float(beta))
    soft = torch.log(number_like(x, 1.0) + torch.exp(scaled)) / number_like(x, float(beta))
    return torch.where(scaled > threshold, x, soft)


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    low = (torch.exp(x * number_like(x, float(input_scale))) - number_like(x, 1.0)) * number_like(x, float(alpha))
    return torch.where(x > 0, x, low) * number_like(x, float(scale))


def _celu(x: Tensor, alpha: float = 1) -> Any:
    return _elu(x, alpha, 1, 1 / alpha)


def _selu(x: Tensor) -> Any:
    return _elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def _prelu(x: Tensor, weight: Tensor) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    return torch.where(x > 0, x, x * weight.reshape(1, -1, *[1] * (x.ndim - 2)))


def _hardsigmoid(x: Tensor) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    raised = torch.relu(x + number_like(x, 3.0))
    return torch.minimum(raised, number_like(x, 6.0)) / number_like(x, 6.0)


def _hardswish(x: Tensor) -> Any:
    return NotImplemented if x.dtype != torch.float64 else x * _hardsigmoid(x)


def _mish(x: Tensor) -> Any:
    return NotImplemented if x.dtype != torch.float64 else x * torch.tanh(_softplus(x))
