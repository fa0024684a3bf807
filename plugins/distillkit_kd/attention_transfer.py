"""Attention transfer."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

import distillkit

from .taps import match


@final
class AttentionTransfer(distillkit.LossTerm):
    """Distance of the maps that show where features are strong, in [0, 4] (unitless); 0 where they are proportional.

    L = mean over taps of mean over images of ||Q_S / ||Q_S||_2 - Q_T / ||Q_T||_2||_2^2, Q = sum over channels of f^2

    f: features, shape (B, C, H, W), of any width on each side; Q: shape (B, H W).

    Source: Zagoruyko and Komodakis (2017), arXiv 1612.03928, activation-based, p = 2.
    Departure: the squared norm, as in the authors' code, instead of the paper's norm, whose gradient has no limit at 0;
    summed over positions where their code takes the mean, so that the value does not depend on the crop's size.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            taps: patterns (fnmatch) of the roles to compare; each must match at least one.
        """

        taps: tuple[str, ...] = ("analysis.*", "latent", "synthesis.*")

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Choose the taps.

        Raises:
            ValueError: a pattern matches no tap, or resolutions differ.
        """
        super().__init__(config, shapes)
        self._roles = match(config.taps, shapes)

    def required_taps(self) -> set[str]:
        """Return the roles to compare."""
        return set(self._roles)

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over taps and images."""
        return torch.stack([self._distance(*step.taps[role]) for role in self._roles]).mean()

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        maps = [F.normalize(side.float().square().sum(1).flatten(1), eps=1e-6) for side in (student, teacher)]
        return (maps[0] - maps[1]).square().sum(1).mean()
