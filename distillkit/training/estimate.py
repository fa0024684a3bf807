"""How long a run will take, from a few measured steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, final

from ..hooks.hookspecs import hookimpl
from ..hooks.loader import Plugins
from ..recipe.recipe import Recipe
from .setup.resolve import resolve, timeline_of
from .train import train

_STEPS = 5  #: at least, of each phase; the first one is not counted
_MOST = 60  #: of a run, however short one of its phases is


@final
class _StepTimes:
    """Collects the seconds of each step, by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @hookimpl
    def metrics_logged(self, metrics: Mapping[str, Any]) -> None:
        """Note one step."""
        self.seconds.setdefault(metrics["phase"], []).append(metrics["seconds_per_step"])


def num_measured(recipe: Recipe, plugins: Plugins) -> int:
    """Return the number of steps after which every phase of a run has been seen."""
    recipe = resolve(recipe, plugins)
    for steps in range(_STEPS, min(_MOST, recipe.num_steps) + 1):
        phases = timeline_of(recipe.model_copy(update={"num_steps": steps}), plugins).phases
        if all(phase.num_steps >= _STEPS for phase in phases):
            return steps
    return min(_MOST, recipe.num_steps)


def estimate_seconds(recipe: Recipe, plugins: Plugins, folder: Path) -> tuple[float, Path]:
    """Carry out the beginning of a run, with all its phases cut short, and return how long the whole one takes.

    Args:
        recipe: of the run.
        plugins: where components are registered.
        folder: gets the short run.

    Returns:
        Seconds of all steps, and the file of the model after a few.

    Raises:
        DistillkitError: as `train`.
    """
    times = _StepTimes()
    steps = num_measured(recipe, plugins)
    short = {"num_steps": steps, "log_every": 1, "checkpoint_every": max(1, steps), "validation": None}
    model = train(recipe.model_copy(update=short), folder, plugins=plugins, observers=[times])
    means = {name: fmean(seconds[1:] or seconds) for name, seconds in times.seconds.items()}
    phases = timeline_of(resolve(recipe, plugins), plugins).phases
    other = fmean(means.values() or [0.0])  # for a phase that was too short to be seen, or a run of no steps
    return sum(phase.num_steps * means.get(phase.name, other) for phase in phases), model
