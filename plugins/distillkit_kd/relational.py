"""Relational distillation."""

from __future__ import annotations

from typing import Annotated, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

import distillkit

from .taps import match


@final
class Relational(distillkit.LossTerm):
    """Difference between the two sides in how the images of a batch relate (unitless); 0 where they are similar.

    L = distance mean h(d_S, d_T) + angle mean h(a_S, a_T), h the Huber loss with delta 1. An image is one point: its
    features, averaged over positions. d: distances between two images, over their mean; a: cosines of the angles of
    three.

    Source: Park et al. (2019), "Relational Knowledge Distillation", arXiv 1904.05068; weights 25 and 50 are theirs.
    Departure: points are channel means of a feature map, for a codec has no embedding of an image. Two images have only
    one distance and no angle, so each process needs three or more in each part of a batch.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            tap: the role to compare.
            distance: weight of the distances.
            angle: weight of the angles.
        """

        tap: str = "latent"
        distance: Annotated[float, Field(ge=0)] = 25.0
        angle: Annotated[float, Field(ge=0)] = 50.0

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Find the tap.

        Raises:
            ValueError: there is no such tap.
        """
        super().__init__(config, shapes)
        (self._role,) = match([config.tap], shapes)

    def required_taps(self) -> set[str]:
        """Return the tap."""
        return {self._role}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the weighted sum for the batch.

        Raises:
            DistillkitError: the batch has fewer than three images; the loss would always be 0.
        """
        if len(step.images) < 3:
            raise distillkit.DistillkitError(
                f"kd.relational: expected batches of three images or more, got {len(step.images)}; raise "
                "data.batch_size, or lower accumulate or the number of processes."
            )
        student, teacher = (side.float().mean((2, 3)) for side in step.taps[self._role])
        return self.config.distance * F.smooth_l1_loss(
            _distances(student), _distances(teacher)
        ) + self.config.angle * F.smooth_l1_loss(_angles(student), _angles(teacher))


def _distances(points: Tensor) -> Tensor:
    """Return the distances of all pairs over their mean, shape (B, B)."""
    # A distance of 0 has no gradient; the diagonal is 0 in any case.
    distances = (points[:, None] - points).square().sum(2).clamp_min(1e-12).sqrt()
    others = distances * (1 - torch.eye(len(points), device=points.device))
    return others / (others.sum() / max(len(points) * (len(points) - 1), 1)).clamp_min(1e-6)


def _angles(points: Tensor) -> Tensor:
    """Return the cosines of the angles at each point towards all pairs, shape (B, B, B)."""
    directions = F.normalize(points[None] - points[:, None], dim=2, eps=1e-6)
    return directions @ directions.transpose(1, 2)
