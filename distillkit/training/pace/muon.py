"""Muon: each matrix of momentum is made orthogonal before it is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam
from typing_extensions import override

from .fused import is_fused

_MOMENTUM = 0.95
_ADAM_BETAS = (0.9, 0.99)
_EPS = 1e-8
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_torch = cast(Any, torch)  # its `_foreach` functions, by which torch's own optimisers move all weights in one launch


@final
class Muon(Optimizer):
    """Muon for matrices, Adam for the rest, at one learning rate.

    A matrix W of sides m, n moves by 0.2 sqrt(max(m, n)) * rate * orthogonal(momentum), so that its elements move as
    far as under Adam. Weights of convolutions count as matrices (outputs, inputs * kernel). Depthwise kernels do not:
    no vector is ever multiplied by all of their rows; nor do biases, scales, or parameters of three dimensions, which
    are stacks of small things.

    Source: Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks, for the method and the
    polynomial's coefficients; Liu et al. (2025), arXiv 2502.16982, for the factor 0.2 sqrt(max(m, n)).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        # The learning rate may become a tensor later: a step reads no number from the device, nor leaves one behind.
        super().__init__(parameters, {"lr": learning_rate, "capturable": True})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moving: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            matrices = [parameter for parameter in moving if is_matrix(parameter)]
            rest = [parameter for parameter in moving if not is_matrix(parameter)]
            if matrices:
                self._move_matrices(matrices, group["lr"])
            if rest:
                self._move_rest(rest, group["lr"])

    def _move_matrices(self, parameters: list[Tensor], rate: float | Tensor) -> None:
        gradients = [_gradient(parameter) for parameter in parameters]
        momenta = [self._state(parameter, "momentum") for parameter in parameters]
        _torch._foreach_mul_(momenta, _MOMENTUM)
        _torch._foreach_add_(momenta, gradients)
        ahead = _torch._foreach_add(gradients, momenta, alpha=_MOMENTUM)  # Nesterov's
        updates = orthogonal([each.flatten(1) for each in ahead])
        _torch._foreach_mul_(updates, [-0.2 * max(update.shape) ** 0.5 for update in updates])
        _torch._foreach_mul_(updates, rate)
        _torch._foreach_add_(parameters, [u.view_as(p) for u, p in zip(updates, parameters, strict=True)])

    def _move_rest(self, parameters: list[Tensor], rate: float | Tensor) -> None:
        fused = is_fused(parameters)
        for parameter in parameters:
            steps = self.state[parameter].get("steps", 0)
            if not isinstance(steps, Tensor):  # at first, and in checkpoints of earlier versions
                device = parameter.device if fused else torch.device("cpu")
                self.state[parameter]["steps"] = torch.full((), float(steps), device=device)
        adam(
            parameters,
            [_gradient(parameter) for parameter in parameters],
            [self._state(parameter, "mean") for parameter in parameters],
            [self._state(parameter, "square") for parameter in parameters],
            [],
            [self.state[parameter]["steps"] for parameter in parameters],
            fused=fused,
            foreach=False,
            amsgrad=False,
            beta1=_ADAM_BETAS[0],
            beta2=_ADAM_BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=_EPS,
            maximize=False,
        )

    def _state(self, parameter: Tensor, name: str) -> Tensor:
        state: dict[str, Any] = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        return state[name]


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix, or a convolution's kernel with more than one input channel."""
    return parameter.ndim in (2, 4) and min(parameter.shape[:2]) > 1


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return the nearest matrices whose singular values are about 1, in (0.7, 1.2): five Newton-Schulz steps.

    The steps' polynomials are taken of the shorter side's Gram matrix, and their product times the matrix at the end,
    which for the kernels of 3x3 convolutions is half the work. That needs float32. Gram matrices of one size are one
    batch; on a GPU, where launches cost more than arithmetic, those of like size, too, filled up with zeros.

    Args:
        matrices: each of shape (m, n), contiguous.

    Returns:
        Matrices of the same shapes, contiguous.
    """
    norms = _torch._foreach_norm([each.float() for each in matrices])
    _torch._foreach_clamp_min_(norms, 1e-30)
    scaled: list[Tensor] = _torch._foreach_div([each.float() for each in matrices], norms)
    places: dict[tuple[int, int], list[int]] = {}
    for place, matrix in enumerate(matrices):
        places.setdefault((matrix.shape[0], matrix.shape[1]), []).append(place)
    batches = {shape: _wide(torch.stack([scaled[place] for place in found])) for shape, found in places.items()}
    sides: dict[int, list[tuple[int, int]]] = {}
    for shape in batches:
        sides.setdefault(_side(min(shape), matrices[0].device), []).append(shape)
    results = list(matrices)
    for side, shapes in sides.items():
        product = _polynomial(torch.cat([_gram(batches[shape], side) for shape in shapes]))
        for shape, part in zip(shapes, product.split([len(batches[shape]) for shape in shapes]), strict=True):
            batch = part[:, : min(shape), : min(shape)] @ batches[shape]
            batch = (batch.mT if shape[0] > shape[1] else batch).to(matrices[0].dtype).contiguous()
            for place, matrix in zip(places[shape], batch, strict=True):
                results[place] = matrix
    return results


def _side(side: int, device: torch.device) -> int:
    """Return to which side Gram matrices of this side are filled up."""
    return side if device.type == "cpu" else max(64, 1 << (side - 1).bit_length())


def _wide(batch: Tensor) -> Tensor:
    return batch.mT if batch.shape[1] > batch.shape[2] else batch


def _gram(batch: Tensor, side: int) -> Tensor:
    more = side - batch.shape[1]
    gram = batch @ batch.mT
    return nn.functional.pad(gram, (0, more, 0, more)) if more else gram


def _polynomial(gram: Tensor) -> Tensor:
    """Return the product of the steps' polynomials, shape (N, k, k), of Gram matrices of that shape."""
    a, b, c = _COEFFICIENTS
    product: Tensor | None = None
    for step in range(_STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else product @ factor
        if step + 1 < _STEPS:
            gram = gram @ factor @ factor
    assert product is not None
    return product


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.contiguous()
