"""The loss terms of a run, built for the taps that a probe of teacher and student finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from ...errors import DistillkitError, PairError, RecipeError, TapError, did_you_mean
from ...hooks.loader import Plugins
from ...model.conditioned import MIDDLE, ConditionedAdapter
from ...recipe.recipe import Recipe
from ...taps.bank import TapReport, TapShapes
from ...taps.pair import TeachingPair
from ...taps.points import eval_mode
from ...taps.provider import find_taps, probe_image
from ...taps.sampled import tap_and_stride
from ..losses import LossTerm
from ..phases import Phase
from .codecs import Codecs
from .teachers import default_teacher, grafts, teacher_of_terms

#: What a term finds in a run without a teacher.
NO_TEACHER = TapReport(TapShapes({}, {}), frozenset(), frozenset(), frozenset())


@final
@dataclass(frozen=True)
class Teaching:
    """What `build_teaching` builds.

    Attributes:
        pairs: each teacher beside the student, by the teacher's name.
        terms: the loss terms by label.
        teacher_of: label -> name of the teacher, for terms that have one.
        host: name of the teacher into which stages are grafted, or an empty text.
        notes: what the user should know of the taps.
    """

    pairs: dict[str, TeachingPair]
    terms: dict[str, LossTerm]
    teacher_of: dict[str, str]
    host: str
    notes: list[str]


def build_teaching(recipe: Recipe, plugins: Plugins, codecs: Codecs) -> Teaching:
    """Bind the codecs of a resolved recipe, probe them, and build its loss terms.

    Raises:
        DistillkitError: teachers, student and loss terms do not fit.
    """
    teacher_of = teacher_of_terms(recipe, plugins)
    size = (recipe.data.crop, recipe.data.crop)
    pairs: dict[str, TeachingPair] = {}
    notes: list[str] = []
    provider_class, config = plugins.configure("taps", recipe.taps.name, recipe.taps.options, "recipe taps")
    provider = provider_class(config)
    taps = codecs.taps
    host = default_teacher(recipe, plugins) if grafts(recipe, plugins) else None
    names = set(teacher_of.values()) | ({host} if host else set[str]())
    for name in sorted(names):
        teacher = codecs.teachers[name]
        taps = taps or find_taps(codecs.codec, provider, size)
        pairs[name] = TeachingPair(
            teacher.codec, codecs.codec, (teacher.taps or find_taps(teacher.codec, provider, size), taps)
        )
        try:
            report = pairs[name].probe(size)
        except DistillkitError as error:
            raise error if len(codecs.teachers) == 1 else type(error)(f"recipe teachers.{name}: {error}") from None
        if report.copied:
            beside = f" of {name} and the student" if len(codecs.teachers) > 1 else ""
            notes.append(
                f"taps{beside} copied at each step, since an in-place activation overwrites them: "
                f"{', '.join(report.copied)}"
            )
    terms: dict[str, LossTerm] = {}
    for label, options in recipe.losses.items():
        report = pairs[teacher_of[label]].report if label in teacher_of else NO_TEACHER
        terms[label] = build_term(f"recipe losses.{label}", label, options, report, plugins)
    return Teaching(pairs, terms, teacher_of, host or "", notes)


@torch.no_grad()
def check_graft(phase: Phase, teaching: Teaching, recipe: Recipe) -> None:
    """Try what a phase grafts on one image.

    Raises:
        PairError: a codec has no such stage, or one of them does not fit into the teacher.
    """
    if not phase.graft:
        return
    where = f"schedule: phase '{phase.name}': "
    pair = teaching.pairs[teaching.host]
    image = probe_image((recipe.data.crop, recipe.data.crop), pair.student.samples, torch.device("cpu"))
    try:
        with eval_mode(pair.student.module), torch.random.fork_rng(devices=[]):
            shape = pair.graft(image, phase.graft)[0].x_hat.shape
    except DistillkitError as error:
        raise type(error)(f"{where}{error}") from None
    except Exception as error:  # of layers that do not fit, each with its own kinds
        reason = " ".join(str(error).split())[:200]
    else:
        if shape == image.shape:
            return
        reason = f"it gives pictures of shape {tuple(shape)}, not {tuple(image.shape)}"
    raise PairError(
        f"{where}graft: expected stages that take and return what the teacher's do, got {', '.join(phase.graft)} of "
        f"the student, which do not fit ({reason}). Graft all stages at once between which it differs, or choose a "
        "pair whose latents have the same channels."
    )


@torch.no_grad()
def check_forcing(phase: Phase, teaching: Teaching, recipe: Recipe) -> None:
    """Try what a phase with teacher forcing does on one image.

    Raises:
        RecipeError: no loss of it needs the latent of a teacher in every step, or those of several do.
        PairError: the two latents differ in shape.
    """
    if not phase.teacher_forcing:
        return
    where = f"schedule: phase '{phase.name}': teacher_forcing: "
    if phase.graft:
        raise RecipeError(f"{where}expected a phase without `graft`, got both; choose one.")
    always = set(phase.weights_at(0)) & set(phase.weights_at(phase.num_steps - 1))
    givers = {
        label: teaching.teacher_of[label]
        for label in phase.weights
        if label in teaching.teacher_of and "latent" in teaching.terms[label].required_taps()
    }
    if len(set(givers.values())) != 1 or not always & set(givers) or phase.every > 1:
        raise RecipeError(
            f"{where}expected a loss that compares the latents with those of one teacher in every step, such as "
            f"kd.latent, got {', '.join(phase.weights) or 'none'} with every = {phase.every}; add one, set every = 1, "
            "and keep its weight above 0."
        )
    pair = teaching.pairs[next(iter(givers.values()))]
    shape = pair.report.shapes.teacher["latent"]
    image = probe_image((recipe.data.crop, recipe.data.crop), pair.student.samples, torch.device("cpu"))
    try:
        with eval_mode(pair.student.module), torch.random.fork_rng(devices=[]):
            quality = torch.full((1,), MIDDLE) if isinstance(pair.student, ConditionedAdapter) else None
            pair.run_student_alone(image, (), quality, torch.zeros(1, shape.channels, shape.height, shape.width))
    except PairError as error:
        raise PairError(f"schedule: phase '{phase.name}': {error}") from None


def build_term(where: str, name: str, options: Mapping[str, Any], report: TapReport, plugins: Plugins) -> LossTerm:
    """Return a loss term built for the taps that a probe found; errors begin with `where`."""
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
