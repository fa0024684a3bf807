"""What the teachers give a training step: features of the taps that are wanted, and outputs."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from typing import final

import torch
from torch import Tensor

from ...model.adapters import CodecOutput
from ...model.precision import Precision
from ...recipe.recipe import Recipe
from ..setup.prepare import Setup
from ..task import Taught
from .compiled import CompiledParts


@final
class Teachers:
    """The frozen teachers of a run; each runs only in steps whose loss terms want something of it."""

    def __init__(self, setup: Setup, recipe: Recipe, device: torch.device, precision: Precision) -> None:
        """Move the teachers to their device, and compile them if the recipe says so."""
        self._setup, self._precision = setup, precision
        self._compiled: dict[str, CompiledParts] = {}
        for name, pair in setup.task.pairs.items():
            pair.teacher.module.to(device)
            if recipe.compile_teacher:
                parts = self._compiled[name] = CompiledParts(pair.teacher.module, pair.tapped("teacher"))
                setup.notes.append(f"{name}: {parts.num_parts} parts are compiled when they first run")

    def teach(self, images: Tensor, active: Collection[str], quality: Tensor | None = None) -> dict[str, Taught]:
        """Return what each teacher gives, by its name, for the loss terms that are on.

        Args:
            images: shape (B, C, H, W), range [0, 1].
            active: labels of the terms.
            quality: the student's, of each image, in [0, 1], shape (B,); None for a student of one rate.
        """
        task = self._setup.task
        wanted: dict[str, list[str]] = {}
        for label in active:
            if label in task.teacher_of:
                wanted.setdefault(task.teacher_of[label], []).append(label)
        return {name: self._taught(name, labels, images, quality) for name, labels in wanted.items()}

    def _taught(self, name: str, labels: Collection[str], images: Tensor, quality: Tensor | None) -> Taught:
        task = self._setup.task
        pair, terms = task.pairs[name], [task.term(label) for label in labels]
        roles = sorted(set().union(*(term.required_taps() for term in terms)))
        own_quality = self._setup.rates.for_teacher(name, quality, images, pair.teacher)
        compiled = self._compiled.get(name)
        with self._precision.autocast(), compiled.active() if compiled else nullcontext():
            if any(term.needs_teacher_output for term in terms):
                output, taps = pair.run_whole_teacher(images, roles, own_quality)
                return Taught(taps, CodecOutput(output.x_hat.float(), output.likelihoods))
            return Taught(pair.run_teacher(images, roles, own_quality) if roles else {})
