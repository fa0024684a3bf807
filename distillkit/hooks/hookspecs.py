"""Every hook point, in the order in which a run meets them. This file is the reference.

A plugin is a module (or any object) whose functions, marked with `distillkit.hookimpl`, carry these names. It is found
through an entry point in the group `distillkit`; the entry point's name is the plugin's name, and a component that it
registers as `gram` is called `<plugin>.gram` in recipes and logs.

A hook implementation can leave out parameters of its specification and have them in any order, but it cannot have other
parameters, default values or keyword-only parameters. No hook is called inside a training step. Where several processes
train, observers are called only in the first one. An observer cannot harm the run: one that raises is reported and left
out. To end a run, raise `distillkit.TrainingStopped` in `checkpoint_saved`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ..taps.pair import CodecPair
    from ..taps.provider import TapProvider
    from ..training.extensions.base import StepExtension
    from ..training.losses import LossTerm
    from ..training.objectives.objective import Objective
    from ..training.pace.optimizers import OptimizerBuilder
    from ..training.pace.rates import RateSchedule
    from ..training.phases import Phase, PhaseSchedule
    from ..training.run_info import RunInfo

hookspec = pluggy.HookspecMarker("distillkit")
hookimpl = pluggy.HookimplMarker("distillkit")


@hookspec
def register_pairs(register: Callable[[str, type[CodecPair]], None]) -> None:
    """Register teacher/student pairs. Called once, when plugins are loaded.

    Args:
        register: call it as `register("cheng2020", Cheng2020Pair)`; the pair is then `<plugin>.cheng2020`.
    """


@hookspec
def register_feature_taps(register: Callable[[str, type[TapProvider]], None]) -> None:
    """Register providers that find feature taps by role in a codec. Called once, when plugins are loaded.

    Args:
        register: call it as `register("by_resolution", ByResolution)`.
    """


@hookspec
def register_loss_terms(register: Callable[[str, type[LossTerm]], None]) -> None:
    """Register distillation losses. Called once, when plugins are loaded.

    Args:
        register: call it as `register("gram", GramAlignment)`.
    """


@hookspec
def register_objectives(register: Callable[[str, type[Objective]], None]) -> None:
    """Register objectives: distortions to train for. Called once, when plugins are loaded.

    Args:
        register: call it as `register("ms_ssim", MultiScaleSimilarity)`.
    """


@hookspec
def register_phase_schedules(register: Callable[[str, type[PhaseSchedule]], None]) -> None:
    """Register schedules of phases. Called once, when plugins are loaded.

    Args:
        register: call it as `register("staged", Staged)`.
    """


@hookspec
def register_optimizers(register: Callable[[str, type[OptimizerBuilder]], None]) -> None:
    """Register optimisers. Called once, when plugins are loaded.

    Args:
        register: call it as `register("lion", LionBuilder)`.
    """


@hookspec
def register_rate_schedules(register: Callable[[str, type[RateSchedule]], None]) -> None:
    """Register schedules of the learning rate. Called once, when plugins are loaded.

    Args:
        register: call it as `register("polynomial", PolynomialRate)`.
    """


@hookspec
def register_step_extensions(register: Callable[[str, type[StepExtension]], None]) -> None:
    """Register what acts around the optimiser's step. Called once, when plugins are loaded.

    Args:
        register: call it as `register("ema", Ema)`.
    """


@hookspec
def run_started(run: RunInfo) -> None:
    """Observe that a run is about to take its first step, or its first step after a resume.

    Called once in the first process of a run, and again where a run that diverged goes back to a checkpoint.

    Args:
        run: the run's name, folder, effective recipe, and the steps from which and to which it goes.
    """


@hookspec
def phase_started(run: RunInfo, phase: Phase, step: int) -> None:
    """Observe that a phase begins, or continues after a resume. Called once a phase and process.

    Args:
        run: the run.
        phase: the phase with its weights, learning rate and trainable parts.
        step: the next step to be taken, counted from 0.
    """


@hookspec
def metrics_logged(run: RunInfo, metrics: Mapping[str, float | int | str]) -> None:
    """Observe the means over the steps since the last call. Called every `log_every` steps and at the end of a phase.

    Args:
        run: the run.
        metrics: `step` (steps done), `phase`, `rate_bpp`, `psnr_db`, `ms_ssim_db` (where the run trains for it),
            `rd_cost`, `learning_rate`, `gradient_norm`, `seconds_per_step`, and for each active loss term `loss/<term>`
            (unweighted) and `weight/<term>`.
    """


@hookspec
def validated(run: RunInfo, metrics: Mapping[str, float | int]) -> None:
    """Observe a validation. Called every `validation.every` steps and after the last one, where the recipe has it.

    Args:
        run: the run.
        metrics: `step` (steps done), `rate_bpp`, `psnr_db`, `rd_cost` on the held-out crops, and `best_step` and
            `best_rd_cost` of the best validation so far.
    """


@hookspec
def checkpoint_saved(run: RunInfo, step: int, path: Path) -> None:
    """Observe that a checkpoint is complete on disk. Called every `checkpoint_every` steps and after the last step.

    Args:
        run: the run.
        step: steps done.
        path: the checkpoint's file.
    """


@hookspec
def run_finished(run: RunInfo, model: Path) -> None:
    """Observe that the run is done and the trained model is on disk. Called once.

    Args:
        run: the run.
        model: the file of the trained model, which loads without the teacher.
    """
