"""The error function and GELU in float64 for ONNX Runtime, which has them in float32 alone.

They are written as ONNX's operators, not as torch's: a GELU is some hundred of them, and the tracer and the converter
would take seconds for each.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

_CENTRE = 3.75  # of the map of [0, inf) to [-1, 1) on which exp(x^2) erfc(x) is a polynomial
_DEGREE = 30


def error_functions() -> dict[Any, Callable[..., Any]]:
    """Return operator -> what takes its place in float64, for `torch.onnx.export(custom_translation_table=...)`."""
    op: Any = importlib.import_module("onnxscript").opset18
    tensor: Any = importlib.import_module("onnx_ir").tensor
    coefficients = _coefficients()

    def number(value: float) -> Any:
        return op.Constant(value=tensor(np.array(value, np.float64)))

    def complement(x: Any) -> Any:
        """Return 1 - erf(x) to some 1e-15: exp(-x^2) times a polynomial (Clenshaw) of a bounded variable."""
        size, centre = op.Abs(x), number(_CENTRE)
        place = op.Div(op.Sub(size, centre), op.Add(size, centre))
        double = op.Add(place, place)
        first, second = number(coefficients[-1]), number(0.0)
        for coefficient in coefficients[-2:0:-1]:
            first, second = op.Add(op.Sub(op.Mul(double, first), second), number(coefficient)), first
        scaled = op.Add(op.Sub(op.Mul(place, first), second), number(coefficients[0]))
        tail = op.Mul(op.Exp(op.Neg(op.Mul(size, size))), scaled)
        return op.Where(op.Less(x, number(0.0)), op.Sub(number(2.0), tail), tail)

    def erf(x: Any) -> Any:
        return op.Sub(number(1.0), complement(x))

    def gelu(x: Any, approximate: str = "none") -> Any:
        return op.Mul(op.Mul(x, number(0.5)), complement(op.Mul(x, number(-math.sqrt(0.5)))))

    return {torch.ops.aten.erf.default: erf, torch.ops.aten.gelu.default: gelu}


def _coefficients() -> list[float]:
    """Return the Chebyshev coefficients of exp(x^2) erfc(x), with x = centre (1 + t) / (1 - t)."""

    def value(t: Any) -> Any:
        x = _CENTRE * (1 + t) / (1 - t)
        return torch.special.erfcx(torch.from_numpy(np.asarray(x, np.float64))).numpy()

    return np.polynomial.chebyshev.chebinterpolate(value, _DEGREE).tolist()
