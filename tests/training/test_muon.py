"""Muon: what it does to one matrix, to many, and to what is no matrix."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from distillkit.training.pace.muon import Muon, is_matrix, orthogonal


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 40), (2, 40, 6)])
def test_singular_values_become_about_one_and_directions_stay(shape):
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(0.2, 3.0, u.shape[-1])
    result = torch.stack(orthogonal(list(u * values @ vt)))
    inside = u.mT @ result @ vt.mT
    diagonal = inside.diagonal(dim1=1, dim2=2)
    assert ((diagonal > 0.65) & (diagonal < 1.25)).all()
    assert torch.allclose(inside - torch.diag_embed(diagonal), torch.zeros_like(inside), atol=1e-4)


def test_the_first_step_of_a_matrix_by_hand():
    """Nesterov's first momentum is 1.95 times the gradient, and orthogonal() knows no scale."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 2, 3, 3))
    before, gradient = weight.detach().clone(), torch.randn(4, 2, 3, 3)
    weight.grad = gradient.clone()
    Muon([weight], 0.1).step()
    moved = before - 0.2 * 18**0.5 * 0.1 * orthogonal([gradient.flatten(1)])[0].view_as(before)
    assert torch.allclose(weight, moved, atol=1e-5)


def test_what_is_no_matrix_moves_as_under_adam():
    torch.manual_seed(0)
    kernels = {"bias": (7,), "depthwise": (6, 1, 3, 3), "stack": (5, 3, 3), "scalar": ()}
    assert is_matrix(torch.empty(2, 3))
    assert is_matrix(torch.empty(2, 3, 1, 1))
    ours = [nn.Parameter(torch.randn(shape)) for shape in kernels.values()]
    assert not any(map(is_matrix, ours))
    theirs = copy.deepcopy(ours)
    muon, adam = Muon(ours, 0.01), torch.optim.Adam(theirs, 0.01, betas=(0.9, 0.99))
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        muon.step()
        adam.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_matrices_of_one_shape_move_as_they_would_alone_and_frozen_ones_stay():
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(5, 4)) for _ in range(3)]
    alone = copy.deepcopy(together)
    optimizers = [Muon(together, 0.1), *(Muon([weight], 0.1) for weight in alone)]
    for step in range(3):
        for index, (a, b) in enumerate(zip(together, alone, strict=True)):
            frozen = index == 2 and step == 1
            a.grad = None if frozen else torch.randn_like(a)
            b.grad = None if frozen else a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, alone, strict=True))


def test_a_gradient_of_zeros_moves_nothing():
    weight = nn.Parameter(torch.ones(3, 4))
    weight.grad = torch.zeros(3, 4)
    Muon([weight], 0.1).step()
    assert torch.equal(weight, torch.ones(3, 4))
