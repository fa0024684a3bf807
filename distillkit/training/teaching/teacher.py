"""What the teacher gives a training step: features of the taps that are wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from typing import final

import torch
from torch import Tensor

from ...model.precision import Precision
from ...recipe.recipe import Recipe
from ..setup.prepare import Setup
from .compiled import CompiledParts


@final
class Teacher:
    """The frozen teacher of a run, which runs only in steps whose loss terms want its features."""

    def __init__(self, setup: Setup, recipe: Recipe, device: torch.device, precision: Precision) -> None:
        """Move the teacher to its device, and compile it if the recipe says so."""
        self._setup, self._precision = setup, precision
        self._compiled: CompiledParts | None = None
        if setup.pair is None:
            return
        setup.pair.teacher.module.to(device)
        if recipe.compile_teacher:
            self._compiled = CompiledParts(setup.pair.teacher.module, setup.pair.teacher_modules)
            setup.notes.append(f"teacher: {self._compiled.num_parts} parts are compiled when they first run")

    def features(
        self, images: Tensor, weights: Mapping[str, float], quality: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the teacher's features, by role, that the loss terms with these weights need.

        Args:
            images: shape (B, C, H, W), range [0, 1].
            weights: of the terms that are on.
            quality: the student's, of each image, in [0, 1], shape (B,); None for a student of one rate.
        """
        roles = self._roles(weights)
        if not roles or self._setup.pair is None:
            return {}
        own_quality = self._setup.rates.for_teacher(quality, images, self._setup.pair.teacher)
        with self._precision.autocast(), self._compiled.active() if self._compiled else nullcontext():
            return self._setup.pair.run_teacher(images, roles, own_quality)

    def _roles(self, terms: Collection[str]) -> list[str]:
        return sorted(set().union(*(self._setup.task.term(name).required_taps() for name in terms)))
