"""What each phase of a run trains on and for, checked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

import torch

from ...data.crops import CropDataset, share_of
from ...errors import DistillkitError, PairError, RecipeError, did_you_mean
from ...hooks.loader import Plugins
from ...model.adapters import CodecAdapter
from ...model.lmbda import Lmbda, LmbdaRange
from ...recipe.recipe import Recipe
from ..distributed import Ranks
from ..objectives.objective import Objective, build_objective
from ..phases import Phase, Timeline
from ..teaching.balance import buffers_kept


@final
@dataclass(frozen=True)
class Stage:
    """A phase, and what it takes from the recipe or changes.

    Attributes:
        phase: it.
        dataset: its crops.
        batch_size: crops per step, over all processes.
        first_sample: number of the first crop of its first step.
        objective: what it trains for.
        lmbda: trade-off of that.
    """

    phase: Phase
    dataset: CropDataset
    batch_size: int
    first_sample: int
    objective: Objective
    lmbda: Lmbda

    def samples(self, step: int, ranks: Ranks) -> range:
        """Return the numbers of the crops that this process takes in a step of the phase, counted from 0."""
        return share_of(step, 1, self.batch_size, ranks.rank, ranks.num, self.first_sample)


def largest_crop(timeline: Timeline, recipe: Recipe) -> int:
    """Return the side of the largest crops of a run, in pixels."""
    return max(phase.crop or recipe.data.crop for phase in timeline.phases)


def build_stages(
    timeline: Timeline, recipe: Recipe, plugins: Plugins, codec: CodecAdapter, dataset: CropDataset, own: Objective
) -> list[Stage]:
    """Build what each phase needs, and check that the codec can be trained so.

    Args:
        timeline: the phases.
        recipe: of the run, resolved.
        plugins: where objectives are registered.
        codec: that is trained.
        dataset: the recipe's crops.
        own: the recipe's objective.

    Raises:
        DistillkitError: a phase cannot be carried out.
    """
    stages: list[Stage] = []
    first = 0
    for phase in timeline.phases:
        where = f"schedule: phase '{phase.name}'"
        crop, batch_size = phase.crop or recipe.data.crop, phase.batch_size or recipe.data.batch_size
        objective = own
        if phase.objective is not None:
            objective = build_objective(phase.objective, plugins, f"{where}: objective")
        name = (phase.objective or recipe.objective.model_dump())["name"]
        if objective.needs_rgb and codec.samples.channels != 3:
            raise RecipeError(
                f"{where}: objective: {name} looks at red, green and blue, and the codec's pictures have "
                f"{codec.samples}; train for core.mse or core.ms_ssim."
            )
        if crop < objective.min_side:
            raise RecipeError(
                f"{where}: expected crops of at least {objective.min_side} pixels for {name}, got {crop}; enlarge "
                f"{'its crop' if phase.crop else 'data.crop'}, and make its batch smaller if memory is short."
            )
        if crop % codec.stride:
            raise RecipeError(f"{where}: expected a crop that is a multiple of {codec.stride}, got {crop}; change it.")
        lmbda = _lmbda(phase, recipe, objective, own, where)
        _check_parts(phase, codec, where)
        try:
            crops = dataset.with_crop(crop)
        except DistillkitError as error:
            raise type(error)(f"{where}: crop of {crop}: {error}") from None
        stages.append(Stage(phase, crops, batch_size, first, objective, lmbda))
        first += phase.num_steps * batch_size
    _check_surrogates(stages, codec)
    return stages


def check_batches(timeline: Timeline, recipe: Recipe, ranks: Ranks) -> None:
    """Check that every batch can be shared.

    Raises:
        RecipeError: the processes, and the parts that each cuts its share into, do not divide one.
    """
    for phase in timeline.phases:
        size = phase.batch_size or recipe.data.batch_size
        if size % (ranks.num * recipe.accumulate):
            where = f"schedule: phase '{phase.name}': batch_size" if phase.batch_size else "recipe data.batch_size"
            raise RecipeError(
                f"{where}: expected a multiple of {ranks.num} processes x accumulate = {recipe.accumulate}, got "
                f"{size}; change one of them."
            )


def _lmbda(phase: Phase, recipe: Recipe, objective: Objective, own: Objective, where: str) -> Lmbda:
    if phase.lmbda is None:
        if objective.usual_lmbdas != own.usual_lmbdas:
            usual = ", ".join(f"{lmbda:g}" for lmbda in objective.usual_lmbdas) or "in its documentation"
            raise RecipeError(
                f"{where}: lmbda: missing; its objective has another unit than the recipe's {recipe.objective.name}. "
                f"In use with it are {usual}."
            )
        return recipe.lmbda
    if isinstance(phase.lmbda, LmbdaRange) != isinstance(recipe.lmbda, LmbdaRange):
        kind = "a range" if isinstance(recipe.lmbda, LmbdaRange) else "one number"
        raise RecipeError(f"{where}: lmbda: expected {kind}, as the recipe's is, got {phase.lmbda}; change it.")
    return phase.lmbda


def _check_parts(phase: Phase, codec: CodecAdapter, where: str) -> None:
    names = [name for name, _ in codec.module.named_parameters()]
    for pattern in phase.trainable:
        if not any(fnmatchcase(name, pattern) for name in names):
            hint = did_you_mean(pattern.rstrip(".*"), {name.partition(".")[0] for name in names})
            hint = hint or f" It has {', '.join(sorted({name.partition('.')[0] for name in names}))}."
            raise RecipeError(
                f"{where}: trainable: no parameter of {type(codec.module).__name__} fits '{pattern}'.{hint}"
            )
    for stage in phase.graft:
        if not any(name.startswith(f"{stage}.") for name in names):
            known = {name.partition(".")[0] for name in names}
            hint = did_you_mean(stage, known) or f" It has {', '.join(sorted(known))}."
            raise RecipeError(f"{where}: graft: {type(codec.module).__name__} has no stage '{stage}' to train.{hint}")
    if not any(phase.trains(name, codec.trainable) for name in names):
        raise RecipeError(
            f"{where}: trainable: expected a part that may be trained, got none; the codec allows "
            f"{', '.join(codec.trainable)}. Change the patterns."
        )


@torch.no_grad()
def _check_surrogates(stages: Sequence[Stage], codec: CodecAdapter) -> None:
    """Try each surrogate: under noise two passes differ, under rounding they do not."""
    training = codec.module.training
    for stage in {stage.phase.surrogate: stage for stage in stages if stage.phase.surrogate}.values():
        surrogate, where = stage.phase.surrogate, f"schedule: phase '{stage.phase.name}': surrogate"
        try:
            with torch.random.fork_rng(devices=[]), buffers_kept(codec.module):
                codec.set_surrogate(surrogate)
                codec.module.train()
                torch.manual_seed(0)
                images = torch.rand(1, codec.samples.channels, stage.dataset.crop, stage.dataset.crop)
                first, second = (codec.forward(images).x_hat for _ in range(2))
        except PairError as error:
            raise PairError(f"{where}: {error}") from None
        finally:
            codec.set_surrogate(None)
            codec.module.train(training)
        if torch.equal(first, second) == (surrogate == "noise"):
            still = "rounds" if surrogate == "noise" else "has noise"
            raise PairError(
                f"{where}: codec {type(codec.module).__name__} still {still} in training, and cannot be changed to "
                f"{surrogate} from outside. Leave `surrogate` out, or override set_surrogate in its "
                "distillkit.CodecAdapter."
            )
