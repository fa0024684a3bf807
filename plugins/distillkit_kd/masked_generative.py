"""Masked generative distillation."""

from __future__ import annotations

from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor, nn

import distillkit

from .taps import Adapters, match


@final
class MaskedGenerative(distillkit.LossTerm):
    """Mean squared error of the teacher's features as generated from the student's, parts of which are masked.

    L = mean over taps of mean((G(M P(f_S)) - sg(f_T))^2), in squared units of the features. M: 0 at a random share of
    the positions, drawn for each image, 1 elsewhere. G: 3x3 convolution, ReLU, 3x3 convolution, trained and never
    exported. P: a trained 1x1 convolution where widths differ. Not 0 where features are equal: G must learn.

    Source: Yang et al. (2022), "Masked Generative Distillation", arXiv 2205.01529; masked positions as for detection.
    Departure: a mean where the paper has a sum, so that the value does not depend on the crop's size.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            taps: patterns (fnmatch) of the roles to compare; each must match at least one.
            masked: share of the positions that are masked; the paper's is 0.65 for two-stage detectors.
        """

        taps: tuple[str, ...] = ("analysis.1/8", "latent")
        masked: Annotated[float, Field(ge=0, lt=1)] = 0.65

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Choose the taps and build adapters and generators.

        Raises:
            ValueError: a pattern matches no tap, or resolutions differ.
        """
        super().__init__(config, shapes)
        self._roles = match(config.taps, shapes)
        self.adapters = Adapters(self._roles, shapes)
        self.generators = nn.ModuleList()
        for role in self._roles:
            width = shapes.teacher[role].channels
            first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
            self.generators.append(nn.Sequential(first, nn.ReLU(), second))

    def required_taps(self) -> set[str]:
        """Return the roles to compare."""
        return set(self._roles)

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over taps; draws the masks from torch's generator."""
        pairs = zip(self._roles, self.generators, strict=True)
        return torch.stack([self._error(role, generator, *step.taps[role]) for role, generator in pairs]).mean()

    def _error(self, role: str, generator: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
        student = self.adapters(role, student)
        mask = torch.rand(student.shape[0], 1, *student.shape[2:], device=student.device) >= self.config.masked
        return (generator(student * mask).float() - teacher.float()).square().mean()
