"""Everything that a run needs, built and checked before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from ...data.crops import CropDataset
from ...data.samples import Samples
from ...errors import RecipeError
from ...hooks.loader import Plugins
from ...model.adapters import CodecAdapter
from ...recipe.recipe import Recipe
from ...taps.pair import TeachingPair
from ..extensions.base import Extensions
from ..objectives.objective import Objective, build_objective
from ..phases import Timeline
from ..task import DistillationTask
from ..teaching.qualities import Rates
from .codecs import build_codecs, build_trained
from .data import training_crops
from .resolve import timeline_of
from .teaching import build_teaching


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
    notes: list[str]
    rates: Rates


def prepare(recipe: Recipe, plugins: Plugins) -> Setup:
    """Build everything that a resolved recipe names.

    Raises:
        DistillkitError: anything that would go wrong later, said now.
    """
    timeline = timeline_of(recipe, plugins)
    trained = build_trained(recipe, plugins)
    samples = trained.codec.samples
    objective = _objective(recipe, plugins, samples)
    dataset, notes = training_crops(recipe, samples)
    codecs = build_codecs(recipe, plugins, trained, dataset)
    teaching = build_teaching(recipe, plugins, codecs)
    teacher = codecs.teacher
    return Setup(
        codec=codecs.codec,
        extensions=codecs.extensions,
        options=codecs.options,
        task=DistillationTask(codecs.codec, recipe.lmbda, objective, teaching.terms, teaching.pair),
        pair=teaching.pair,
        teacher_fingerprint=teacher.fingerprint if teacher else "",
        timeline=timeline,
        dataset=dataset,
        notes=[*notes, *codecs.notes, *teaching.notes],
        rates=Rates(recipe.lmbda, teacher.lmbda if teacher else None),
    )


def _objective(recipe: Recipe, plugins: Plugins, samples: Samples) -> Objective:
    objective = build_objective(recipe.objective.model_dump(), plugins, "recipe objective")
    if recipe.data.crop < objective.min_side:
        raise RecipeError(
            f"recipe data.crop: expected at least {objective.min_side} pixels for {recipe.objective.name}, got "
            f"{recipe.data.crop}; enlarge it, and make data.batch_size smaller if memory is short."
        )
    if objective.needs_rgb and samples.channels != 3:
        raise RecipeError(
            f"recipe objective: {recipe.objective.name} looks at red, green and blue, and the codec's pictures have "
            f"{samples}; train for core.mse or core.ms_ssim."
        )
    return objective
