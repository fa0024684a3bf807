"""From a recipe to everything that a run needs, checked before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from ..data.crops import CALIBRATION_SEED, CropDataset, batches
from ..data.images import survey
from ..data.shards import list_training_images
from ..errors import DistillkitError, RecipeError, TapError, did_you_mean
from ..hooks.loader import Plugins
from ..model.adapters import CodecAdapter, as_codec, fingerprint
from ..model.file import load_model
from ..model.initialise import inherit_weights
from ..recipe.recipe import Recipe
from ..taps.bank import TapShapes
from ..taps.pair import CodecPair, TapReport, TeachingPair, find_taps
from ..taps.points import Tap
from ..taps.sampled import tap_and_stride
from .extensions.base import Extensions, build_extensions, needs_teacher
from .losses import LossTerm
from .objectives.objective import Objective, build_objective
from .phases import Timeline
from .qualities import Rates, check_rates, check_teacher
from .random_state import seed_everything
from .task import DistillationTask


@final
@dataclass(frozen=True)
class Setup:
    """What `prepare` builds.

    Attributes:
        codec: the codec that is trained.
        extensions: what acts around the optimiser's step.
        options: of its pair, for its file.
        task: it and the loss terms, as one module.
        pair: teacher and student, or None without distillation.
        teacher_fingerprint: hash of the teacher's weights, or an empty string.
        timeline: the phases.
        dataset: the training crops.
        report: what the probe of the pair found, or None without distillation.
        notes: what the user should know before the first step.
        rates: the trade-offs of student and teacher.
    """

    codec: CodecAdapter
    extensions: Extensions
    options: dict[str, Any]
    task: DistillationTask
    pair: TeachingPair | None
    teacher_fingerprint: str
    timeline: Timeline
    dataset: CropDataset
    report: TapReport | None
    notes: list[str]
    rates: Rates


#: What a term finds in a run without a teacher.
NO_TEACHER = TapReport(TapShapes({}, {}), frozenset(), frozenset(), frozenset())


def prepare(recipe: Recipe, plugins: Plugins) -> Setup:
    """Build everything that a resolved recipe names.

    Initial weights depend on the seed alone: the student of a run with distillation starts where the student of a run
    without it does.

    Raises:
        DistillkitError: anything that would go wrong later, said now.
    """
    timeline = timeline_of(recipe, plugins)
    objective = _objective(recipe, plugins)
    dataset, notes = _dataset(recipe)
    pair_class, config = plugins.configure("pair", recipe.pair.name, recipe.pair.options, "recipe pair")
    pair: CodecPair = pair_class(config)
    seed_everything(recipe.seed)
    codec = as_codec(pair.build_student() if recipe.trains == "student" else pair.build_teacher())
    options = pair.options_of(recipe.trains, codec.module)
    _check_crop(codec, recipe)
    check_rates(codec, recipe)
    source: CodecAdapter | None = None
    if isinstance(recipe.initial_weights, Path):
        source = load_model(recipe.initial_weights, plugins).codec
    taught = any(plugins.configure_loss(*loss)[0].needs_teacher for loss in recipe.losses.items())
    alone = {} if taught else _terms(recipe, NO_TEACHER, plugins)
    if not taught and recipe.initial_weights != "teacher" and not needs_teacher(recipe, plugins):
        notes += _inherit(codec, source, dataset, recipe)
        extensions = build_extensions(recipe, plugins, codec, None)
        task = DistillationTask(codec, recipe.lmbda, objective, alone, None)
        return Setup(codec, extensions, options, task, None, "", timeline, dataset, None, notes, Rates(recipe.lmbda))
    teacher, teacher_fingerprint, teacher_taps, rates = _teacher(recipe, pair, plugins)
    notes += _inherit(codec, teacher if recipe.initial_weights == "teacher" else source, dataset, recipe)
    extensions = build_extensions(recipe, plugins, codec, teacher)
    own_taps = pair.student_taps() if extensions.codec is codec else teacher_taps
    codec = extensions.codec
    if not taught:
        task = DistillationTask(codec, recipe.lmbda, objective, alone, None)
        return Setup(codec, extensions, options, task, None, teacher_fingerprint, timeline, dataset, None, notes, rates)
    size = (recipe.data.crop, recipe.data.crop)
    provider_class, provider_config = plugins.configure("taps", recipe.taps.name, recipe.taps.options, "recipe taps")
    provider = provider_class(provider_config)
    taps = (
        teacher_taps or find_taps(teacher, provider, size),
        own_taps or find_taps(codec, provider, size),
    )
    teaching = TeachingPair(teacher, codec, taps)
    report = teaching.probe(size)
    if report.copied:
        notes.append(
            f"taps copied at each step, since an in-place activation overwrites them: {', '.join(report.copied)}"
        )
    terms = _terms(recipe, report, plugins)
    task = DistillationTask(codec, recipe.lmbda, objective, terms, teaching)
    return Setup(
        codec, extensions, options, task, teaching, teacher_fingerprint, timeline, dataset, report, notes, rates
    )


def _dataset(recipe: Recipe) -> tuple[CropDataset, list[str]]:
    """Return the training crops, and what to say of the images: which are left out, how many are converted."""
    settings = recipe.data
    paths, left_out = list_training_images(settings.train)
    notes = [left_out] if left_out else []
    skip_bad = settings.bad_images == "skip"
    if skip_bad or settings.convert:
        problems, converted = survey(paths, settings.crop, convert=settings.convert)
        if converted:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in converted.most_common())
            notes.append(f"converted to 8-bit RGB: {converted.total()} of {len(paths)} pictures: {kinds}")
        if skip_bad:
            notes += [f"left out: {problem}" for problem in problems]
            bad = {problem.path for problem in problems}
            paths = sorted(path for path in paths if path not in bad)
    dataset = CropDataset(
        paths, settings.crop, recipe.seed, settings.cache_mib, skip_bad, settings.convert, settings.num_crops
    )
    return dataset, notes + [f"left out: {problem}" for problem in dataset.problems.values()]


def timeline_of(recipe: Recipe, plugins: Plugins) -> Timeline:
    """Return the phases of a resolved recipe."""
    schedule_class, config = plugins.configure(
        "schedule", recipe.schedule.name, recipe.schedule.options, "recipe schedule"
    )
    terms = list(recipe.losses)
    try:
        phases = schedule_class(config).phases(recipe.num_steps, terms)
    except ValueError as error:
        raise RecipeError(f"recipe schedule {recipe.schedule.name}: {error}") from None
    return Timeline(phases, recipe.num_steps, terms)


def _objective(recipe: Recipe, plugins: Plugins) -> Objective:
    objective = build_objective(recipe.objective.model_dump(), plugins, "recipe objective")
    if recipe.data.crop < objective.min_side:
        raise RecipeError(
            f"recipe data.crop: expected at least {objective.min_side} pixels for {recipe.objective.name}, got "
            f"{recipe.data.crop}; enlarge it, and make data.batch_size smaller if memory is short."
        )
    return objective


def _teacher(
    recipe: Recipe, pair: CodecPair, plugins: Plugins
) -> tuple[CodecAdapter, str, Mapping[str, str | Tap] | None, Rates]:
    """Return the teacher, its fingerprint, the taps that its own pair, perhaps another one, names for it, and rates."""
    if recipe.teacher is None:
        check_teacher(f"pair {recipe.pair.name}", pair.teacher_lmbda, recipe)
        teacher = as_codec(pair.build_teacher())
        return teacher, fingerprint(teacher.module), pair.teacher_taps(), Rates(recipe.lmbda, pair.teacher_lmbda)
    model = load_model(recipe.teacher, plugins)
    check_teacher("recipe teacher", model.lmbda, recipe)
    own_class, config = plugins.configure("pair", model.pair, model.options, "recipe teacher")
    own: CodecPair = own_class(config)
    taps = own.teacher_taps() if model.part == "teacher" else own.student_taps()
    return model.codec, model.fingerprint, taps, Rates(recipe.lmbda, model.lmbda)


def _check_crop(codec: CodecAdapter, recipe: Recipe) -> None:
    if recipe.data.crop % codec.stride:
        raise RecipeError(
            f"recipe data.crop: expected a multiple of {codec.stride}, got {recipe.data.crop}; change it."
        )


@torch.no_grad()
def _inherit(codec: CodecAdapter, source: CodecAdapter | None, dataset: CropDataset, recipe: Recipe) -> list[str]:
    """Start `codec` from the weights of `source`, if there is one; return what to say of it."""
    if source is None:
        return []
    _check_crop(source, recipe)
    source.module.eval()
    bits = torch.zeros(0)  # that the source spends on each channel of its latent
    for images in batches(dataset.with_seed(recipe.seed + CALIBRATION_SEED), recipe.data.batch_size, 0, 8):
        likelihoods = source.forward(images.contiguous()).likelihoods
        if "y" in likelihoods:
            bits = bits.new_zeros(likelihoods["y"].shape[1]) if not len(bits) else bits
            bits = bits - likelihoods["y"].log2().sum(dim=(0, 2, 3))
    return [str(inherit_weights(codec.module, source.module, bits))]


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
