"""Which quality each crop of a step has, for a student of many rates and for a teacher of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...data.crops import CropDataset, share_of
from ...errors import PairError, RecipeError
from ...model.adapters import CodecAdapter
from ...model.conditioned import ConditionedAdapter
from ...model.lmbda import Lmbda, LmbdaRange
from ...recipe.recipe import Recipe
from ..distributed import Ranks


@final
@dataclass(frozen=True)
class Rates:
    """The trade-offs of a run.

    Attributes:
        student: of the codec that is trained: a number, or the range of a codec of many rates.
        teacher: what the teacher was trained for; None without a teacher of many rates, or where that is not known.
    """

    student: Lmbda
    teacher: Lmbda | None = None

    def of_step(self, step: int, recipe: Recipe, dataset: CropDataset, ranks: Ranks) -> Sequence[Tensor | None]:
        """Return the qualities of this process's crops in a step, shape (B,) each part; None each for one rate."""
        if not isinstance(self.student, LmbdaRange):
            return [None] * recipe.accumulate
        samples = share_of(step, 1, recipe.data.batch_size, ranks.rank, ranks.num)
        return dataset.qualities(samples).to(ranks.device).chunk(recipe.accumulate)

    def for_teacher(self, quality: Tensor | None, images: Tensor, teacher: CodecAdapter) -> Tensor | None:
        """Return the teacher's quality for the trade-off of each image, shape (B,); None for a teacher of one rate.

        Args:
            quality: the student's, shape (B,), or None for a student of one rate.
            images: shape (B, C, H, W).
            teacher: the teacher.
        """
        if not isinstance(teacher, ConditionedAdapter):
            return None
        if not isinstance(self.teacher, LmbdaRange):
            return quality
        if isinstance(self.student, LmbdaRange):
            assert quality is not None
            return self.teacher.quality_of(self.student.at(quality)).clamp(0, 1)
        return images.new_full((len(images),), self.teacher.quality_of(self.student), dtype=torch.float32)


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


def check_teacher(where: str, teacher: Lmbda | None, recipe: Recipe) -> None:
    """Check that a teacher can teach at the trade-offs of a run.

    Args:
        where: names the teacher in errors.
        teacher: what it was trained for; None if that is not known.
        recipe: of the run.

    Raises:
        PairError: it was trained for others.
    """
    fits = teacher in (None, recipe.lmbda) or (isinstance(teacher, LmbdaRange) and teacher.holds(recipe.lmbda))
    if not fits:
        raise PairError(
            f"{where}: the teacher was trained for lmbda {teacher}, this run is for {recipe.lmbda}. "
            "The ranking of its channels holds at its own lmbda only; take a teacher for this one."
        )
