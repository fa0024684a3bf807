"""What observers know of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..recipe.recipe import Recipe
from .extensions.view import ModelView


@final
@dataclass(frozen=True)
class RunInfo:
    """What observers know of a run.

    Attributes:
        name: the run folder's name.
        folder: the run folder.
        recipe: the recipe with every effective value.
        start_step: steps done before, by an earlier process.
        num_steps: steps of the whole run.
        model: the model of the run so far; None outside of a run.
        notes: what the user should know: images left out, taps that are copied, a damaged checkpoint.
        header: what the run does, pairs of a name and a text: device, sizes, pictures, taps, losses, schedule.
    """

    name: str
    folder: Path
    recipe: Recipe
    start_step: int
    num_steps: int
    notes: tuple[str, ...] = ()
    model: ModelView | None = None
    header: tuple[tuple[str, str], ...] = ()
