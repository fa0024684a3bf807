"""Which teacher teaches what."""

from __future__ import annotations

from typing import Any

from ...errors import RecipeError, did_you_mean
from ...hooks.loader import Plugins
from ...model.lmbda import LmbdaRange
from ...recipe.recipe import TEACHER, TOGETHER, Recipe
from ...recipe.settings import ComponentChoice
from ...taps.pair import CodecPair
from ..phases import PhaseSchedule


def teacher_of_terms(recipe: Recipe, plugins: Plugins) -> dict[str, str]:
    """Return the name of the teacher of each loss term, by the term's label; terms without one are left out.

    Raises:
        RecipeError: a term names a teacher that is not there, or names none where there are several.
    """
    default = default_teacher(recipe, plugins)
    names: set[str] = {*recipe.teachers, *([default] if default else [])}
    known = sorted(names)
    teachers: dict[str, str] = {}
    for label, options in recipe.losses.items():
        where, named = f"recipe losses.{label}", options.get("teacher")
        needs = plugins.configure_loss(label, options)[0].needs_teacher
        if named is None and needs:
            if default is None and known:
                raise RecipeError(f'{where}: expected one of the teachers, got none; add teacher = "{known[0]}".')
            teachers[label] = default or TEACHER
        elif named is not None:
            if not needs:
                raise RecipeError(f"{where}: teacher: the loss compares with no teacher; remove this key.")
            if named not in known:
                hint = did_you_mean(str(named), known) or f" There are {', '.join(known) or 'none'}."
                raise RecipeError(f"{where}: teacher: no teacher {named!r} in the recipe.{hint}")
            teachers[label] = named
    return teachers


def default_teacher(recipe: Recipe, plugins: Plugins) -> str | None:
    """Return the name of the teacher for losses that name none.

    It is the recipe's, the pair's own, the only one, or, for a codec of many rates, all of several together.
    """
    if recipe.teacher is not None or _pretrained(recipe, plugins):
        return TEACHER
    if len(recipe.teachers) > 1 and isinstance(recipe.lmbda, LmbdaRange):
        return TOGETHER
    return next(iter(recipe.teachers)) if len(recipe.teachers) == 1 else None


def teachers_wanted(recipe: Recipe, plugins: Plugins) -> list[str]:
    """Return the names of the teachers that something in the recipe needs."""
    wanted = set(teacher_of_terms(recipe, plugins).values())
    default = default_teacher(recipe, plugins)
    if recipe.initial_weights == "teacher" or _extensions_that_need_one(recipe, plugins):
        wanted.add(default or TEACHER)
    if default is not None and grafts(recipe, plugins):
        wanted.add(default)
    return sorted(wanted)


def grafts(recipe: Recipe, plugins: Plugins) -> bool:
    """Return whether the schedule grafts stages of the student into its teacher, where there is one."""
    where = "recipe schedule"
    schedule_class, config = plugins.configure("schedule", recipe.schedule.name, recipe.schedule.options, where)
    schedule: PhaseSchedule = schedule_class(config)
    return schedule.needs_teacher and recipe.trains == "student"


def control_of(recipe: Recipe, plugins: Plugins) -> Recipe:
    """Return the recipe of the same student without a teacher; losses and extensions that need none stay."""
    losses = {
        label: options
        for label, options in recipe.losses.items()
        if not plugins.configure_loss(label, options)[0].needs_teacher
    }
    needing = _extensions_that_need_one(recipe, plugins)
    changes: dict[str, Any] = {
        "losses": losses,
        "extensions": {name: options for name, options in recipe.extensions.items() if name not in needing},
        "teacher": None,
        "teachers": {},
    }
    if recipe.initial_weights == "teacher":
        changes["initial_weights"] = "random"
    if grafts(recipe, plugins):
        changes["schedule"] = ComponentChoice(name="core.constant")
    return recipe.model_copy(update=changes)


def check_teachers(recipe: Recipe, plugins: Plugins) -> None:
    """Check that the recipe names every teacher that is needed, and no other.

    Raises:
        RecipeError: it is not so.
    """
    for name, meaning in ((TEACHER, "the teacher that the key `teacher` names"), (TOGETHER, "all of them together")):
        if name in recipe.teachers:
            raise RecipeError(f"recipe teachers.{name}: this is the name of {meaning}; rename it.")
    taught, inherits = teacher_of_terms(recipe, plugins), recipe.initial_weights == "teacher"
    if recipe.trains == "teacher" and (taught or recipe.teacher or recipe.teachers or inherits):
        raise RecipeError(
            "recipe trains: 'teacher' is trained without another teacher or losses that need one; remove them."
        )
    wanted = teachers_wanted(recipe, plugins)
    if TEACHER in wanted and recipe.teacher is None and not _pretrained(recipe, plugins):
        needing = _extensions_that_need_one(recipe, plugins)
        why = "there are losses" if TEACHER in taught.values() else 'initial_weights = "teacher"'
        why = why if TEACHER in taught.values() or inherits else f"{needing[0]} needs one"
        raise RecipeError(
            f'recipe teacher: missing, but {why}. Train one first (trains = "teacher") and name its '
            "model.safetensors here."
        )
    for name in recipe.teachers:
        if name not in wanted and TOGETHER not in wanted:
            raise RecipeError(
                f'recipe teachers.{name}: no loss names it; give one the key teacher = "{name}", or remove it.'
            )
    if recipe.teacher is not None and TEACHER not in wanted:
        raise RecipeError(
            "recipe teacher: nothing in the recipe needs it: no loss that has it, no extension, no schedule, and "
            f"initial_weights is {recipe.initial_weights}. Remove this key, or give a loss."
        )


def _pretrained(recipe: Recipe, plugins: Plugins) -> bool:
    pair_class, config = plugins.configure("pair", recipe.pair.name, recipe.pair.options, "recipe pair")
    pair: CodecPair = pair_class(config)
    return pair.pretrained_teacher


def _extensions_that_need_one(recipe: Recipe, plugins: Plugins) -> list[str]:
    return [name for name in recipe.extensions if plugins.get("extension", name, "recipe").needs_teacher]
