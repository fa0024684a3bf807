"""A recipe's names and options against the plugins: what it means before anything is built."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import RecipeError, did_you_mean
from ...hooks.components import Component, validate
from ...hooks.loader import Plugins
from ...recipe.recipe import Recipe
from ...recipe.settings import ComponentChoice, OptimizerSettings, full_name
from ..phases import Timeline
from .teachers import check_teachers, default_teacher, grafts, teacher_of_terms


def resolve(recipe: Recipe, plugins: Plugins) -> Recipe:
    """Return a recipe with every effective value filled in and every path absolute.

    Raises:
        RecipeError: a component is not registered, or its options are not valid.
    """

    def fill(kind: str, choice: ComponentChoice, where: str) -> ComponentChoice:
        _, config = plugins.configure(kind, choice.name, choice.options, where)
        return ComponentChoice(name=choice.name, **config.model_dump(mode="json"))

    for key, labels in (("losses", recipe.losses), ("teachers", recipe.teachers)):
        _check_alike(key, labels)
    extensions = _extensions(recipe, plugins)
    losses = _losses(recipe, plugins)
    check_teachers(recipe, plugins)
    _check_lmbda(recipe, plugins)
    initial, validation = recipe.initial_weights, recipe.validation
    return recipe.model_copy(
        update={
            "pair": fill("pair", recipe.pair, "recipe pair"),
            "objective": fill("objective", recipe.objective, "recipe objective"),
            "schedule": fill("schedule", recipe.schedule, "recipe schedule"),
            "taps": fill("taps", recipe.taps, "recipe taps"),
            "losses": losses,
            "optimizer": _optimizer(recipe, plugins),
            "extensions": extensions,
            "validation": validation.model_copy(update={"data": validation.data.resolve()}) if validation else None,
            "teacher": recipe.teacher.resolve() if recipe.teacher else None,
            "teachers": {name: path.resolve() for name, path in recipe.teachers.items()},
            "initial_weights": initial.resolve() if isinstance(initial, Path) else initial,
            "data": recipe.data.model_copy(update={"train": recipe.data.train.resolve()}),
        }
    )


def timeline_of(recipe: Recipe, plugins: Plugins) -> Timeline:
    """Return the phases of a resolved recipe: the schedule's, or, where no loss has a teacher, those without one.

    Raises:
        RecipeError: the schedule has no place for a loss term, or its phases are not valid.
    """
    schedule_class, config = plugins.configure(
        "schedule", recipe.schedule.name, recipe.schedule.options, "recipe schedule"
    )
    terms = list(recipe.losses)
    try:
        phases = schedule_class(config).phases(recipe.num_steps, terms)
    except ValueError as error:
        raise RecipeError(f"recipe schedule {recipe.schedule.name}: {error}") from None
    grafted = grafts(recipe, plugins) and default_teacher(recipe, plugins) is not None
    if teacher_of_terms(recipe, plugins) or grafted:
        return Timeline(phases, recipe.num_steps, terms)
    gone = sorted({name for phase in phases for name in phase.weights if name not in terms})
    misspelt = [name for name in gone if name not in plugins.components["loss"] and did_you_mean(name, terms)]
    phases = [phase.without_teacher([*terms, *misspelt]) for phase in phases]
    notes = (
        [f"no loss has a teacher: the schedule's weights of {', '.join(gone)} are left out"] if terms and gone else []
    )
    return Timeline(phases, recipe.num_steps, terms, notes)


def _extensions(recipe: Recipe, plugins: Plugins) -> dict[str, dict[str, Any]]:
    resolved: dict[str, dict[str, Any]] = {}
    for name, options in recipe.extensions.items():
        if "." not in name and options:
            raise RecipeError(
                f"recipe extensions.{name}: expected an extension's full name. In TOML it needs quotes: "
                f'[extensions."{name}.{next(iter(options))}"].'
            )
        _, config = plugins.configure("extension", name, options, f"recipe extensions.{name}")
        resolved[name] = config.model_dump(mode="json")
    return resolved


def _losses(recipe: Recipe, plugins: Plugins) -> dict[str, dict[str, Any]]:
    resolved: dict[str, dict[str, Any]] = {}
    for label, options in recipe.losses.items():
        if "." not in label and "name" not in options and options:
            raise RecipeError(
                f"recipe losses.{label}: expected a loss's full name, or a label with `name`. In TOML a full name "
                f'needs quotes: [losses."{label}.{next(iter(options))}"].'
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?", label):
            raise RecipeError(f"recipe losses: label {label!r}: expected letters, digits, _ and -; rename it.")
        if options.get("name", label) != label and label in plugins.components["loss"]:
            raise RecipeError(f"recipe losses.{label}: the label is the name of another loss; rename it.")
        _, config = plugins.configure_loss(label, options)
        named = {key: options[key] for key in ("name", "teacher") if key in options}
        resolved[label] = named | config.model_dump(mode="json")
    return resolved


def _check_alike(key: str, labels: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        if (alike := seen.setdefault(label.casefold(), label)) != label:
            raise RecipeError(f"recipe {key}: '{alike}' and '{label}' differ only in case; rename one.")


def _check_lmbda(recipe: Recipe, plugins: Plugins) -> None:
    if "lmbda" in recipe.model_fields_set or recipe.objective.name == "core.mse":
        return
    usual = ", ".join(
        f"{lmbda:g}" for lmbda in plugins.get("objective", recipe.objective.name, "recipe objective").usual_lmbdas
    )
    raise RecipeError(
        f"recipe lmbda: missing; {recipe.objective.name} has another unit than the default is for. "
        + (f"In use with it are {usual}." if usual else "See its documentation.")
    )


def _optimizer(recipe: Recipe, plugins: Plugins) -> OptimizerSettings:
    settings, where = recipe.optimizer, "recipe optimizer"
    builder: type[Component] = plugins.get("optimizer", full_name(settings.name), where)
    known = [*OptimizerSettings.model_fields, *builder.Config.model_fields]
    for name in settings.options:
        if name not in known:
            hint = did_you_mean(name, known) or f" Known keys: {', '.join(sorted(known))}."
            raise RecipeError(f"{where}: {name}: unknown key.{hint}")
    _, config = plugins.configure("optimizer", full_name(settings.name), settings.options, where)
    where = "recipe optimizer.rate_schedule"
    rate_class, rate_config = plugins.configure("rate", settings.rate.name, settings.rate.options, where)
    if recipe.validation is None and rate_class(rate_config).needs_validation:
        raise RecipeError(
            f"{where}: {settings.rate.name} follows the validation, and there is none; add a table [validation]."
        )
    values = {name: getattr(settings, name) for name in OptimizerSettings.model_fields}
    rate = ComponentChoice(name=settings.rate.name, **rate_config.model_dump(mode="json"))
    values |= {"name": full_name(settings.name), "rate_schedule": rate, **config.model_dump(mode="json")}
    return validate(OptimizerSettings, values, where)
