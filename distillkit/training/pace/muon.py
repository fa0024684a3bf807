"""Muon: momentum whose every matrix is made orthogonal before it is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

_MOMENTUM = 0.95
_ADAM_BETAS = (0.9, 0.99)
_EPS = 1e-8
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


@final
class Muon(Optimizer):
    """Muon for matrices, Adam for the rest, at one learning rate.

    A matrix W of sides m, n moves by 0.2 sqrt(max(m, n)) * rate * orthogonal(momentum), so that its elements move as
    far as under Adam. Weights of convolutions count as matrices (outputs, inputs * kernel). Depthwise kernels do not:
    no vector is ever multiplied by all of their rows; nor do biases, scales, or parameters of three dimensions, which
    are stacks of small things. Matrices of one shape are made orthogonal as one batch.

    Source: Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks, for the method and the
    polynomial's coefficients; Liu et al. (2025), arXiv 2502.16982, for the factor 0.2 sqrt(max(m, n)).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        super().__init__(parameters, {"lr": learning_rate})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moving: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            shapes: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in moving:
                if is_matrix(parameter):
                    shapes.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
            for matrices in shapes.values():
                self._move_matrices(matrices, group["lr"])
            for parameter in moving:
                if not is_matrix(parameter):
                    self._move_rest(parameter, group["lr"])

    def _move_matrices(self, parameters: list[Tensor], rate: float) -> None:
        ahead: list[Tensor] = []
        for parameter in parameters:
            gradient = _gradient(parameter)
            momentum = self._state(parameter, "momentum").mul_(_MOMENTUM).add_(gradient)
            ahead.append(gradient.add(momentum, alpha=_MOMENTUM).flatten(1))  # Nesterov's
        updates = orthogonal(torch.stack(ahead))
        step = -0.2 * max(updates.shape[1:]) ** 0.5 * rate
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.add_(update.view_as(parameter), alpha=step)

    def _move_rest(self, parameter: Tensor, rate: float) -> None:
        gradient = _gradient(parameter)
        first, second = _ADAM_BETAS
        mean = self._state(parameter, "mean").lerp_(gradient, 1 - first)
        square = self._state(parameter, "square").mul_(second).addcmul_(gradient, gradient, value=1 - second)
        steps = self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1
        scale = square.div(1 - second**steps).sqrt_().add_(_EPS)
        parameter.addcdiv_(mean, scale, value=-rate / (1 - first**steps))

    def _state(self, parameter: Tensor, name: str) -> Tensor:
        state: dict[str, Any] = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        return state[name]


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix, or a convolution's kernel with more than one input channel."""
    return parameter.ndim in (2, 4) and min(parameter.shape[:2]) > 1


def orthogonal(matrices: Tensor) -> Tensor:
    """Return the nearest matrices whose singular values are about 1, in (0.7, 1.2): five Newton-Schulz steps.

    The steps' polynomials are taken of the shorter side's Gram matrix, and their product times the matrix at the end,
    which for the kernels of 3x3 convolutions is half the work. That needs float32.

    Args:
        matrices: shape (N, m, n).

    Returns:
        Of the same shape.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.float().mT if tall else matrices.float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    gram = x @ x.mT
    a, b, c = _COEFFICIENTS
    product: Tensor | None = None
    for step in range(_STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else product @ factor
        if step + 1 < _STEPS:
            gram = gram @ factor @ factor
    assert product is not None
    x = product @ x
    return (x.mT if tall else x).to(matrices.dtype)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.contiguous()
