"""The loss terms of a run, built for the taps that a probe of teacher and student finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from ...errors import DistillkitError, RecipeError, TapError, did_you_mean
from ...hooks.loader import Plugins
from ...recipe.recipe import Recipe
from ...taps.bank import TapShapes
from ...taps.pair import TapReport, TeachingPair, find_taps
from ...taps.sampled import tap_and_stride
from ..losses import LossTerm
from .codecs import Codecs
from .resolve import is_taught

#: What a term finds in a run without a teacher.
NO_TEACHER = TapReport(TapShapes({}, {}), frozenset(), frozenset(), frozenset())


@final
@dataclass(frozen=True)
class Teaching:
    """What `build_teaching` builds.

    Attributes:
        pair: teacher and student, or None without distillation.
        terms: the loss terms by label.
        notes: what the user should know of the taps.
    """

    pair: TeachingPair | None
    terms: dict[str, LossTerm]
    notes: list[str]


def build_teaching(recipe: Recipe, plugins: Plugins, codecs: Codecs) -> Teaching:
    """Bind the codecs of a resolved recipe, probe them, and build its loss terms.

    Raises:
        DistillkitError: teacher, student and loss terms do not fit.
    """
    if not is_taught(recipe, plugins) or codecs.teacher is None:
        return Teaching(None, _terms(recipe, NO_TEACHER, plugins), [])
    size = (recipe.data.crop, recipe.data.crop)
    provider_class, config = plugins.configure("taps", recipe.taps.name, recipe.taps.options, "recipe taps")
    provider = provider_class(config)
    teacher = codecs.teacher
    taps = (
        teacher.taps or find_taps(teacher.codec, provider, size),
        codecs.taps or find_taps(codecs.codec, provider, size),
    )
    pair = TeachingPair(teacher.codec, codecs.codec, taps)
    report = pair.probe(size)
    notes: list[str] = []
    if report.copied:
        notes.append(
            f"taps copied at each step, since an in-place activation overwrites them: {', '.join(report.copied)}"
        )
    return Teaching(pair, _terms(recipe, report, plugins), notes)


def _terms(recipe: Recipe, report: TapReport, plugins: Plugins) -> dict[str, LossTerm]:
    return {
        label: build_term(f"recipe losses.{label}", label, options, report, plugins)
        for label, options in recipe.losses.items()
    }


def build_term(where: str, name: str, options: Mapping[str, Any], report: TapReport, plugins: Plugins) -> LossTerm:
    """Return a loss term built for the taps that a probe found; `where` it is named stands in errors."""
    term_class, config = plugins.configure_loss(name, options, where)
    try:
        term: LossTerm = term_class(config, report.shapes)
        if not term.needs_teacher and (term.required_taps() or term.needs_calibration):
            raise ValueError(
                f"{term_class.__name__} says needs_teacher = False, but asks for taps or a calibration, which come "
                "with a teacher. Read step.output and step.images, or leave needs_teacher at True."
            )
        missing = sorted({tap_and_stride(role)[0] for role in term.required_taps()} - set(report.shapes.student))
    except DistillkitError as error:
        raise type(error)(f"{where}: {error}") from None
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None
    for role in missing:
        side = "the student" if role in report.only_teacher else "the teacher" if role in report.only_student else None
        what = f"{side} has no tap '{role}'" if side else f"no tap '{role}' in teacher or student"
        shared = report.shapes.student
        raise TapError(f"{where}: {what}; both have {', '.join(shared)}.{did_you_mean(role, shared)}")
    return term
