"""What changes when a run gets more steps than it had."""

from __future__ import annotations

from ..hooks.loader import Plugins
from ..recipe.recipe import Recipe
from .pace.pace import rate_schedule
from .phases import Timeline
from .setup.resolve import timeline_of


def lengthening(recipe: Recipe, plugins: Plugins, before: int, step: int) -> list[str]:
    """Return what the user should know of a resolved recipe that had `before` steps and continues after `step`."""
    shorter = recipe.model_copy(update={"num_steps": before})
    notes = [f"lengthened from {before} to {recipe.num_steps} steps; what was trained so far continues"]
    old, new = (
        rate_schedule(each, plugins).factor(place, each.num_steps)
        for each, place in ((shorter, max(step - 1, 0)), (recipe, step))
    )
    if abs(old - new) > 1e-3:
        notes.append(
            f"the rate schedule {recipe.optimizer.rate.name} spans all {recipe.num_steps} steps: the learning rate, "
            f"which was at {old:.2g} of its highest, continues at {new:.2g}"
        )
    phases = [
        _phase(timeline_of(each, plugins), place) for each, place in ((shorter, max(step - 1, 0)), (recipe, step))
    ]
    if phases[0] != phases[1]:
        notes.append(
            f"the schedule {recipe.schedule.name} divides all {recipe.num_steps} steps: after phase '{phases[0]}' the "
            f"run continues in '{phases[1]}'"
        )
    return notes


def _phase(timeline: Timeline, step: int) -> str:
    return timeline.phases[timeline.at(step)[0]].name
