"""One visible loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, final

import torch
from torch import Tensor

from ..errors import CheckpointError, DivergedError
from ..hooks.loader import Plugins
from ..model.precision import Precision
from ..recipe.recipe import Recipe
from .distributed import Ranks
from .extensions.view import ModelView
from .folder.checkpoint import save_checkpoint
from .folder.run_folder import RunFolder
from .metrics import MetricsWindow
from .observers import Observers
from .pace.pace import Pace, aux_optimizer, load_optimizer
from .preemption import StopRequest, TrainingStopped
from .random_state import random_state, restore_random_state, seed_rank
from .result import Result
from .run_info import RunInfo
from .setup.data import Crops
from .setup.prepare import Setup
from .setup.stages import Stage
from .step.step import TrainingStep
from .teaching.calibration import calibrate

_LOWEST_RATE = 2.0**-5  #: how far going back lowers the learning rate


@final
class Trainer:
    """The state of a run in progress, and its loop."""

    def __init__(self, recipe: Recipe, run: RunFolder, plugins: Plugins, setup: Setup, ranks: Ranks) -> None:
        """Build optimisers and move everything to its device."""
        self.recipe, self.run_folder, self.hook, self.setup = recipe, run, Observers(plugins.manager), setup
        self.ranks = ranks
        self.precision = Precision(recipe.precision, ranks.device, setup.notes)
        self.parameters = setup.task.main_parameters()
        setup.task.to(ranks.device)
        setup.objective.to(ranks.device)
        self.pace = Pace(recipe, plugins, self.parameters)
        self.aux_optimizer = aux_optimizer(setup.codec.quantile_parameters(), recipe)
        self.extensions, self.view = setup.extensions, ModelView(setup.extensions)
        self.result = Result(recipe, run, setup, ranks)
        moving = (self.pace, self.aux_optimizer, self.parameters)
        self.step = TrainingStep(recipe, setup, ranks, self.precision, *moving, self._check_finite)
        self.crops = Crops(setup.dataset, recipe.data, ranks, setup.notes)
        self.window: dict[str, Any] | None = None  # of metrics, where the run continues within one
        seed_rank(recipe.seed + 1, ranks.rank)  # noise and order do not depend on what was built before

    def restore(self, state: dict[str, Any]) -> int:
        """Take over a checkpoint and return how many steps were done.

        Raises:
            CheckpointError: the teacher is not the one with which the run began, or the parts do not fit.
        """
        self.run_folder.check_teachers(state["teacher_fingerprint"], self.setup.fingerprints)
        try:
            self.setup.task.load_state_dict(state["task"])
            self.pace.load_state_dict(state)
            self.extensions.load_state_dict(state.get("extensions", {}))
            if self.aux_optimizer is not None:
                load_optimizer(self.aux_optimizer, state["aux_optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"run folder {self.run_folder.path}: its checkpoint does not fit the recipe's components: {error}. Was "
                "a plugin changed since the run began?"
            ) from None
        self.precision.scaler.load_state_dict(state.get("scaler") or self.precision.scaler.state_dict())
        device = self.ranks.device
        self.step.scales = {name: torch.full((), scale, device=device) for name, scale in state["scales"].items()}
        self.step.balanced = state["balanced"]
        self.window = state.get("window")
        restore_random_state(state, self.ranks, self.recipe.seed + 1)
        return state["step"]

    def go_back(self, info: RunInfo, error: DivergedError) -> RunInfo:
        """Take over the newest checkpoint again, halve the learning rate, and return from where the run continues.

        Raises:
            TrainingError: the recipe does not ask for that, or it was done too often.
        """
        state, notes = self.run_folder.newest_state()
        if self.recipe.on_divergence == "stop" or state is None or self.pace.lowered <= _LOWEST_RATE:
            raise error
        rate_factor = self.pace.lowered / 2
        step = self.restore(state)
        self.pace.lowered = rate_factor
        what = str(error).partition(": ")[2].partition(". ")[0]
        notes.append(f"{what}: back to step {step}, now at {rate_factor:g} times the recipe's learning rate")
        return replace(info, start_step=step, notes=tuple(notes))

    def save(self, step: int, window: MetricsWindow | None = None) -> Path:
        """Write a checkpoint after `step` steps, with what `window` has summed since the last line of metrics."""
        state = {
            "step": step,
            "task": self.setup.task.state_dict(),
            **self.pace.state_dict(),
            "extensions": self.extensions.state_dict(),
            "aux_optimizer": self.aux_optimizer.state_dict() if self.aux_optimizer else None,
            "scaler": self.precision.scaler.state_dict(),
            "scales": {name: float(scale) for name, scale in self.step.scales.items()},
            "balanced": self.step.balanced,
            "window": window.state(step) if window else None,
            "teacher_fingerprint": self.setup.fingerprints,
            **random_state(self.ranks),
        }
        return self.ranks.first(lambda: save_checkpoint(self.run_folder.checkpoints, step, state))

    def run(self, info: RunInfo, stop: StopRequest) -> None:
        """Take all remaining steps, or those until a stop is asked for, then write the trained model."""
        recipe, step, ranks, hook = self.recipe, info.start_step, self.ranks, self.hook
        ranks.first(lambda: hook.run_started(run=info))
        if step == 0 and recipe.on_divergence == "rollback":
            self.save(0)
        self.setup.task.train()
        window: MetricsWindow | None = None
        for images in ranks.together(self._batches(step)):
            stage, step_in_phase = self._stage(step)
            phase = stage.phase
            if window is None or step_in_phase == 0:
                self._enter(stage)
                ranks.first(lambda phase=phase, step=step: hook.phase_started(run=info, phase=phase, step=step))
                window = MetricsWindow(list(phase.weights), step, ranks)
                window.restore(self.window, ranks.device)
            self._step(images, stage, step, step_in_phase, window)
            step += 1
            if step % recipe.log_every == 0 or step_in_phase == phase.num_steps - 1:
                self._check_finite(window)
                about = (self.pace.learning_rate, self.step.scales, self.setup.task.objective)
                metrics = window.metrics(step, phase, step_in_phase, *about)
                ranks.first(lambda metrics=metrics: hook.metrics_logged(run=info, metrics=metrics))
                window = MetricsWindow(list(phase.weights), step, ranks)
            if (measured := self.result.validate(step)) is not None:
                self.pace.schedule.validated(measured["rd_cost"])
                ranks.first(lambda measured=measured: hook.validated(run=info, metrics=measured))
            stopping = ranks.any(stop.made)
            if step % recipe.checkpoint_every == 0 or step == recipe.num_steps or stopping:
                self._check_finite(window)
                if ranks.any(not bool(torch.stack([each.isfinite().all() for each in self.parameters]).all())):
                    self._stop("a weight", step - 1)
                path = self.save(step, window)
                ranks.first(lambda path=path, step=step: hook.checkpoint_saved(run=info, step=step, path=path))
            if stopping and step < recipe.num_steps:
                if stop.by_user:
                    raise KeyboardInterrupt
                raise TrainingStopped(f"run {info.name}: stopped after step {step} of {recipe.num_steps}, and saved.")
        ranks.first(self.result.finish)
        ranks.first(lambda: hook.run_finished(run=info, model=self.run_folder.model))

    def _stage(self, step: int) -> tuple[Stage, int]:
        """Return the phase of a step of the run, and the step's number within it."""
        index, step_in_phase = self.setup.timeline.at(step)
        return self.setup.stages[index], step_in_phase

    def _batches(self, step: int) -> Iterator[Tensor]:
        """Yield this process's share of the batches from a step on, phase by phase."""
        while step < self.recipe.num_steps:
            stage, first = self._stage(step)
            left = stage.phase.num_steps - first
            yield from self.crops.batches(stage.dataset, stage.batch_size, first, left, stage.first_sample)
            step += left

    def _step(self, images: Tensor, stage: Stage, step: int, step_in_phase: int, window: MetricsWindow) -> None:
        self.step.take(images, stage, step, step_in_phase, window)

    def _enter(self, stage: Stage) -> None:
        """Freeze what the phase freezes, set what it trains for, and let its terms measure what they need."""
        phase, task = stage.phase, self.setup.task
        stage.objective.to(self.ranks.device)
        task.objective, task.lmbda = stage.objective, stage.lmbda
        task.graft, task.teacher_forcing = phase.graft, phase.teacher_forcing
        self.setup.codec.set_surrogate(phase.surrogate)
        for name, parameter in self.setup.codec.module.named_parameters():
            parameter.requires_grad_(phase.trains(name, self.setup.codec.trainable))
        for name in phase.weights:
            if self.setup.task.term(name).needs_calibration:
                calibrate(name, self.setup, self.recipe, self.run_folder, self.ranks)
        # Gradients are averaged over processes by a wrapper that is made again in each phase.
        self.step.enter(self.ranks.wrap(self.setup.task))

    def _check_finite(self, window: MetricsWindow) -> None:
        bad = window.first_not_finite()
        if bad is not None:
            self._stop(bad[1], bad[0])
        if self.precision.gave_up():
            self._stop("the gradient", window.start)

    def _stop(self, name: str, step: int) -> NoReturn:
        raise self.run_folder.diverged(name, step)
