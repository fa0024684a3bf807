"""The check of an objective."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ..hooks.components import validate
from ..training.objectives.objective import Objective


def check_objective(objective: type[Objective], *, size: int = 192, **options: Any) -> None:
    """Check an objective: one figure per picture, 0 or its least where nothing is distorted, and a gradient.

    Args:
        objective: the class.
        size: side of the pictures in pixels.
        options: of its `Config`.

    Raises:
        AssertionError: it does not keep its contract; the message says which part.
    """
    name = objective.__name__
    made = objective(validate(objective.Config, options, name))
    assert size >= made.min_side, f"{name}: its pictures need sides of {made.min_side} pixels; give a larger size"
    generator = torch.Generator().manual_seed(0)
    images = F.avg_pool2d(torch.rand(2, 3, size, size, generator=generator), 5, 1, 2)
    near, far = ((images + scale * torch.randn(images.shape, generator=generator)) for scale in (0.02, 0.2))
    x_hat = torch.stack([near[0], far[1]]).requires_grad_()
    got = made.distortion(x_hat, images)
    assert got.shape == (2,), f"{name}: expected one figure per picture, shape (2,), got {tuple(got.shape)}"
    assert bool(got.isfinite().all()), f"{name}: expected finite distortions, got {got.tolist()}"
    least = made.distortion(images, images)
    assert bool((got > least).all()), f"{name}: a distorted picture costs {got.tolist()}, the original {least.tolist()}"
    assert got[1] > got[0], f"{name}: the picture that is distorted more costs less: {got.tolist()}"
    got.sum().backward()
    assert x_hat.grad is not None, f"{name}: no gradient reaches the reconstruction"
    assert bool(x_hat.grad.isfinite().all()), f"{name}: a gradient is not finite"
    alone = made.distortion(x_hat[:1], images[:1])
    assert torch.allclose(alone[0], got[0], rtol=1e-4), f"{name}: a picture's figure depends on the rest of its batch"
    far_off = (1 - images).requires_grad_()
    made.distortion(far_off, images).sum().backward()
    assert far_off.grad is not None, f"{name}: no gradient reaches a reconstruction that is far off"
    assert bool(far_off.grad.isfinite().all()), (
        f"{name}: the gradient of a reconstruction that is far off is not finite"
    )
