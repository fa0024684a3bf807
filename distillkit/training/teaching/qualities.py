"""Which quality each crop of a step has, for a student of many rates and for a teacher of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...data.crops import CropDataset
from ...errors import PairError, RecipeError
from ...model.adapters import CodecAdapter
from ...model.conditioned import ConditionedAdapter
from ...model.lmbda import Lmbda, LmbdaRange
from ...recipe.recipe import Recipe


@final
@dataclass(frozen=True)
class Rates:
    """The trade-offs of a run.

    Attributes:
        student: of the codec that is trained: a number, or the range of a codec of many rates.
        teachers: what each teacher was trained for, by its name; None where that is not known.
    """

    student: Lmbda
    teachers: Mapping[str, Lmbda | None]

    def of_samples(self, samples: Sequence[int], dataset: CropDataset, device: torch.device) -> Tensor | None:
        """Return the qualities of this process's crops in a step, shape (B,); None for a codec of one rate."""
        if not isinstance(self.student, LmbdaRange):
            return None
        qualities = dataset.qualities(samples)
        qualities = qualities.pin_memory() if device.type == "cuda" else qualities  # or the device would be waited for
        return qualities.to(device, non_blocking=True)

    def for_teacher(self, name: str, quality: Tensor | None, images: Tensor, teacher: CodecAdapter) -> Tensor | None:
        """Return the teacher's quality for the trade-off of each image, shape (B,); None for a teacher of one rate.

        Where the teacher was trained for other trade-offs, it is the nearest quality that it has.

        Args:
            name: the teacher's.
            quality: the student's, shape (B,), or None for a student of one rate.
            images: shape (B, C, H, W).
            teacher: the teacher.
        """
        if not isinstance(teacher, ConditionedAdapter):
            return None
        lmbda = self.teachers.get(name)
        if not isinstance(lmbda, LmbdaRange):
            return quality
        if isinstance(self.student, LmbdaRange):
            assert quality is not None
            return lmbda.quality_of(self.student.at(quality)).clamp(0, 1)
        nearest = min(max(lmbda.quality_of(self.student), 0.0), 1.0)
        return images.new_full((len(images),), nearest, dtype=torch.float32)


def check_rates(codec: CodecAdapter, recipe: Recipe) -> None:
    """Check that a recipe trains a codec of many rates for a range, and one of a single rate for a number.

    Raises:
        RecipeError: it does not.
    """
    is_range, name = isinstance(recipe.lmbda, LmbdaRange), type(codec.module).__name__
    if is_range and not isinstance(codec, ConditionedAdapter):
        raise RecipeError(
            f"recipe lmbda: expected one number, for {name} has one rate, got the range {recipe.lmbda}. Make it a "
            "codec of many rates, in shipped pairs by `gain_units = 6` among the pair's options."
        )
    if isinstance(codec, ConditionedAdapter) and not is_range:
        raise RecipeError(
            f"recipe lmbda: expected a range, for {name} is a codec of many rates, got {recipe.lmbda}; write "
            "{low = 0.0018, high = 0.0483}, for one."
        )


def check_teacher(where: str, teacher: Lmbda | None, recipe: Recipe, label: str) -> None:
    """Check that a teacher can teach a term that needs the run's own trade-off.

    Args:
        where: names the teacher in errors.
        teacher: what it was trained for; None if that is not known.
        recipe: of the run.
        label: of the term.

    Raises:
        PairError: it was trained for others.
    """
    fits = teacher in (None, recipe.lmbda) or (isinstance(teacher, LmbdaRange) and teacher.holds(recipe.lmbda))
    if not fits:
        raise PairError(
            f"{where}: the teacher was trained for lmbda {teacher}, this run is for {recipe.lmbda}, and what "
            f"losses.{label} takes from it holds at its own lmbda only. Take a teacher for this one, or leave the loss "
            "out."
        )
