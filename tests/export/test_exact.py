"""Networks that must be exact are so in ONNX Runtime, or are refused with the error that they would make."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillkit.errors import PairError
from distillkit.export.check import check_exact
from distillkit.export.networks import Network, write_onnx
from distillkit.export.runtimes import load_network


class Of(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def exported(function, folder, example=None):
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    example = torch.rand(1, 4, 6, 10, dtype=torch.float64) if example is None else example
    network = Network("part", Of(function), ["x"], ["y"], [example], [{}], True)
    write_onnx(network, folder)
    return [network]


def filled(x):
    x = x.clone()
    x[:, :, ::2] = 0.1
    return x + torch.full((10,), 0.1, dtype=torch.float64) + torch.full_like(x, 0.1) + x.new_full((1,), 0.3)


def chosen(x):
    x = torch.where(x > 0.1, x, 0.1) + torch.where(x < 0.3, 0.1, x)
    return torch.clamp(x.masked_fill(x > 0.7, 0.1), -0.11)


def computed(x):
    x = ((0.7 - x) * 0.1 + 0.3) / 0.9 + torch.add(x, x, alpha=0.1) + torch.lerp(x, x * x, 0.1)
    return torch.addcmul(x, x, x, value=0.1) + 0.3**x + F.interpolate(x, scale_factor=2)[:, :, ::2, ::2]


def bent(x):
    activations = (F.leaky_relu, F.gelu, F.silu, F.softplus, F.elu, F.celu, F.selu, F.hardsigmoid, F.hardswish, F.mish)
    curves = [activation(x) for activation in activations]
    curves += [torch.erf(x), F.gelu(x, approximate="tanh"), F.hardtanh(x, -0.1, 0.2), F.elu(x, 0.3), F.celu(x, 0.3)]
    return torch.cat([*curves, F.prelu(x, torch.full((4,), 0.1, dtype=torch.float64))])


@pytest.mark.slow
def test_gelu_is_exact_in_onnx_at_all_sizes(tmp_path):
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)[None, None, None].repeat(1, 4, 1, 1)
    exported(F.gelu, tmp_path, x)
    (found,) = load_network(tmp_path, "part", 1)([x.numpy()])
    torch.testing.assert_close(torch.from_numpy(found), F.gelu(x), rtol=0, atol=4e-15)


@pytest.mark.parametrize(
    "function", [chosen, *(pytest.param(each, marks=pytest.mark.slow) for each in (filled, computed, bent))]
)
def test_numbers_and_activations_are_exact_in_onnx(function, tmp_path):
    """ONNX keeps a plain number as float32, and a table would then be chosen by an error of 1e-8."""
    check_exact(exported(function, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            lambda x: x + torch.linspace(0, 0.1, 10, dtype=torch.float64),
            r"expected float64, got relative errors of .e-[01]",
        ),
        pytest.param(
            lambda x: F.avg_pool2d(x, 2),
            "expected one that its runtime can run, got NotImplemented: .*AveragePool",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_loses_bits_or_cannot_be_run_is_refused(function, reason, tmp_path):
    with pytest.raises(PairError, match=f"network part: {reason}.*--to model"):
        check_exact(exported(function, tmp_path), tmp_path)
