"""A recorded pass, cut into networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distillkit.export import operators
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
