"""Weights by gradient norms: they make the terms of a phase comparable with rate-distortion."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from ..task import StepLosses


@contextmanager
def buffers_kept(module: nn.Module) -> Generator[None]:
    """Put a module's buffers back afterwards: a look at the gradients is no step of BatchNorm's running statistics."""
    before = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in before:
                buffer.copy_(kept)


def balanced_scales(
    parameters: Iterable[nn.Parameter],
    parts: Iterable[StepLosses],
    ratio: float,
    terms: Iterable[str],
    mean_over_ranks: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> dict[str, Tensor]:
    """Return for each term the factor that makes its gradient's norm `ratio` times rate-distortion's: scalars.

    Nothing waits for them: they stay where the gradients are.

    Norms are over the parameters that both losses reach, and of the gradient of the whole batch.

    Args:
        parameters: the student's; frozen ones are left out.
        parts: the losses of the batch, part by part if it was cut; each is dropped before the next is asked for.
        ratio: the ratio of the norms to reach.
        terms: full names of the terms to scale.
        mean_over_ranks: averages a tensor over the processes that share the batch.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    sums: dict[str, list[Tensor | None]] = {}

    def add(name: str, loss: Tensor) -> None:
        found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
        gradients = cast(tuple[Tensor | None, ...], found)  # None for the unused, which torch's types leave out
        before = sums.get(name) or [None] * len(wanted)
        sums[name] = [g if s is None else s if g is None else s + g for s, g in zip(before, gradients, strict=True)]

    terms = list(terms)
    for losses in parts:
        add("", losses.rd.cost)
        for name in terms:
            add(name, losses.terms[name])
    means = {name: [None if s is None else mean_over_ranks(s) for s in own] for name, own in sums.items()}
    scales: dict[str, Tensor] = {}
    for name in terms:
        pairs = [(r, g) for r, g in zip(means[""], means[name], strict=True) if r is not None and g is not None]
        if not pairs:
            scales[name] = torch.ones((), device=wanted[0].device)
            continue
        rd_norm = torch.stack([r.float().norm() for r, _ in pairs]).norm()
        term_norm = torch.stack([g.float().norm() for _, g in pairs]).norm()
        scales[name] = torch.where(term_norm > 0, ratio * rd_norm / term_norm, 1.0)
    return scales
