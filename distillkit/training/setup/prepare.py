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
from ..extensions.base import Extensions
from ..objectives.objective import Objective, build_objective
from ..phases import Timeline
from ..task import DistillationTask
from ..teaching.qualities import Rates
from .borders import border_notes
from .codecs import build_codecs, build_trained
from .data import training_crops
from .resolve import timeline_of
from .stages import Stage, build_stages, largest_crop
from .teaching import build_teaching, check_forcing, check_graft


@final
@dataclass(frozen=True)
class Setup:
    """What `prepare` builds.

    Attributes:
        codec: the codec that is trained.
        extensions: what acts around the optimiser's step.
        options: of its pair, for its file.
        task: it, the loss terms, and the teachers beside it, as one module.
        fingerprints: hashes of the teachers' weights, by name.
        timeline: the phases.
        stages: what each phase trains on and for, in the same order.
        dataset: the training crops of the recipe.
        objective: the recipe's.
        notes: what the user should know before the first step.
        rates: the trade-offs of student and teachers.
    """

    codec: CodecAdapter
    extensions: Extensions
    options: dict[str, Any]
    task: DistillationTask
    fingerprints: dict[str, str]
    timeline: Timeline
    stages: list[Stage]
    dataset: CropDataset
    objective: Objective
    notes: list[str]
    rates: Rates


def prepare(recipe: Recipe, plugins: Plugins) -> Setup:
    """Build everything that a resolved recipe names.

    Raises:
        DistillkitError: something would go wrong later.
    """
    timeline = timeline_of(recipe, plugins)
    trained = build_trained(recipe, plugins)
    samples = trained.codec.samples
    objective = _objective(recipe, plugins, samples)
    crop = largest_crop(timeline, recipe)
    dataset, notes = training_crops(recipe, crop, samples)
    codecs = build_codecs(recipe, plugins, trained, dataset)
    stages = build_stages(timeline, recipe, plugins, codecs.codec, dataset, objective)
    teaching = build_teaching(recipe, plugins, codecs)
    for stage in stages:
        check_graft(stage.phase, teaching, recipe)
        check_forcing(stage.phase, teaching, recipe)
    taught = teaching.pairs, teaching.teacher_of, teaching.host
    task = DistillationTask(codecs.codec, recipe.lmbda, objective, teaching.terms, *taught)
    return Setup(
        codec=codecs.codec,
        extensions=codecs.extensions,
        options=codecs.options,
        task=task,
        fingerprints={name: teacher.fingerprint for name, teacher in codecs.teachers.items()},
        timeline=timeline,
        stages=stages,
        dataset=dataset,
        objective=objective,
        notes=[*timeline.notes, *notes, *border_notes(trained.codec, crop), *codecs.notes, *teaching.notes],
        rates=Rates(recipe.lmbda, {name: teacher.lmbda for name, teacher in codecs.teachers.items()}),
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
