"""A recorded pass, cut into networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillkit.export import operators
from distillkit.export.functional import _without_changes, functional
from distillkit.export.program import cut


class Halves(nn.Module):
    """Codes one half of its channels, and needs the other afterwards: both are views of one tensor."""

    def forward(self, x):
        first, second = (x * 2).chunk(2, 1)
        indexes = operators.table(first, 0, 0)
        return [torch.cat([indexes, first], 1) + second[:, :1], indexes]


@pytest.mark.slow
def test_a_network_that_takes_a_view_is_traced_for_any_size():
    sizes = {2: 2 * torch.export.Dim("height", max=64), 3: 2 * torch.export.Dim("width", max=64)}
    graph = torch.export.export(Halves(), (torch.rand(1, 4, 4, 6),), dynamic_shapes=(sizes,))
    _, (_, last) = cut(graph, "encode")
    dynamic = tuple({axis: torch.export.Dim.AUTO for axis in axes} for axes in last.dynamic)
    traced = torch.export.export(last.module, tuple(last.examples), dynamic_shapes=dynamic)
    traced.run_decompositions({})  # it checks the tracer's own rules, which cannot speak of what a view is of
    assert all(example._base is None for example in last.examples)


def added(x):
    y = 2 * x
    y += x
    return F.relu(y, inplace=True) - x


def convolved(x):
    y = F.conv2d(x * 1, torch.ones(4, 4, 1, 1))
    return F.leaky_relu(y, inplace=True) + x


def read_as_a_part(x):
    y = 2 * x
    first = y[:, :1]
    y += 1
    return first + y


def filled(x):
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, 1:]
    return y


def filled_twice(x):
    y = torch.zeros_like(x)
    y[:, 1] = x[:, 0] + 1
    y[:, 2:, 1:] += x[:, 2:, :1]
    y[..., 0] = 7
    first = y[:, :1]
    return first + y


def put(x):
    y = torch.zeros_like(x)
    y[x > 0] = 2.0
    y[:, -1:, :, -1:].fill_(3)
    return y


def read_through_another_view(x):
    y = 2 * x
    flat, part = y.flatten(), y[:, :1]
    part += 1
    return flat


def converted(x):
    y = 2 * x
    same = y.to(torch.float32)
    same *= 3
    return y


def kept(x):
    y = 2 * x
    before = y.type_as(x)  # the same tensor, which its schema does not say
    y += 1
    return before


@pytest.mark.parametrize(
    ("function", "is_simple"),
    [
        (added, True),
        (convolved, True),
        (read_as_a_part, False),
        (filled, True),
        (filled_twice, True),
        (put, True),
        (read_through_another_view, False),
        (converted, True),
        (kept, False),
    ],
)
def test_no_operator_changes_its_input(function, is_simple):
    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    x = torch.arange(-6, 10.0).reshape(1, 4, 2, 2)
    traced = torch.export.export(Module(), (x,))
    made = functional(copy.deepcopy(traced))
    assert _without_changes(traced.graph) == is_simple
    assert not any(node.op == "call_function" and node.target._schema.is_mutable for node in made.graph.nodes)
    assert torch.equal(made.module()(x.clone()), function(x.clone()))
