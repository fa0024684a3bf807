"""One visible loop."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn, final

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor

from .checkpoint import save_checkpoint
from .data import CALIBRATION_SEED, CropDataset, batches
from .errors import CheckpointError, TrainingError
from .losses import Calibration, psnr_from_mse
from .metrics import MetricsWindow
from .model_file import save_model
from .observers import MetricsFile, RunInfo
from .optimizers import build_optimizer, learning_rate_factor
from .phases import Phase
from .plugins import Plugins, load_plugins
from .precision import bf16_is_fast
from .preemption import StopRequest, TrainingStopped, stop_on_sigterm
from .recipe import Recipe
from .run_folder import RunFolder
from .setup import Setup, prepare, seed_everything


def train(
    recipe: Recipe, folder: str | Path, *, plugins: Plugins | None = None, observers: Sequence[object] = ()
) -> Path:
    """Carry out a run, or what is left of it, and return the file of the trained model.

    A folder that holds a finished run of the same recipe is left as it is; an unfinished one goes on from its newest
    whole checkpoint, bit for bit as if it had never stopped (on a CPU).

    Args:
        recipe: what to do.
        folder: the run folder, see `RunFolder`.
        plugins: where components are registered; by default the installed plugins.
        observers: objects with observer hooks, for this run alone.

    Raises:
        DistillkitError: bad input, or a loss that is not finite.
        TrainingStopped: the process got SIGTERM; the step in hand was finished and saved.
    """
    plugins = plugins or load_plugins()
    recipe = recipe.resolve(plugins)
    run = RunFolder(Path(folder).resolve())
    run.open(recipe)
    if run.model.exists():
        return run.model
    state, notes = run.newest_state()
    trainer = Trainer(recipe, run, plugins, prepare(recipe, plugins))
    start_step = trainer.restore(state) if state else 0
    if start_step:
        notes.append(f"going on after step {start_step}")
    notes += trainer.setup.notes
    info = RunInfo(run.path.name, run.path, recipe, start_step, recipe.num_steps, tuple(notes))
    try:
        with plugins.observing([MetricsFile(), *observers]), stop_on_sigterm() as stop:
            trainer.run(info, stop)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)  # the next run may want another precision
    return run.model


@final
class Trainer:
    """The state of a run in progress, and its loop."""

    def __init__(self, recipe: Recipe, run: RunFolder, plugins: Plugins, setup: Setup) -> None:
        """Build optimisers and move everything to its device."""
        self.recipe, self.run_folder, self.hook, self.setup = recipe, run, plugins.manager.hook, setup
        on_cpu = recipe.device == "cpu"
        fast = bf16_is_fast(torch.device(PartialState(cpu=on_cpu).device or "cpu"))
        bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and fast)
        if bf16 and not fast:
            setup.notes.append("precision bf16: this device only emulates it, and is many times faster in fp32 or auto")
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision="bf16" if bf16 else "no")
        if setup.pair is not None:
            setup.pair.teacher.module.to(self.accelerator.device)
        self.parameters = setup.task.main_parameters()
        quantiles = setup.codec.quantile_parameters()
        optimizer = build_optimizer(recipe.optimizer, self.parameters)
        self.aux_optimizer = torch.optim.Adam(quantiles, recipe.optimizer.aux_learning_rate) if quantiles else None
        self.task, self.optimizer = self.accelerator.prepare(setup.task, optimizer)
        self.scales: dict[str, float] = {}  # of the terms that this phase, or an earlier one, has balanced
        self.balanced: list[str] = []  # the terms that this phase has balanced
        seed_everything(recipe.seed + 1)  # noise and order do not depend on what was built before

    def restore(self, state: dict[str, Any]) -> int:
        """Take over a checkpoint and return how many steps were done.

        Raises:
            CheckpointError: the teacher is not the one with which the run began, or the parts do not fit.
        """
        if state["teacher_fingerprint"] != self.setup.teacher_fingerprint:
            raise CheckpointError(
                f"run folder {self.run_folder.path}: the teacher's weights changed since the run began (fingerprint "
                f"{state['teacher_fingerprint'][:8]} then, {self.setup.teacher_fingerprint[:8]} now). Bring the old "
                "teacher back, or start a new run."
            )
        try:
            self.setup.task.load_state_dict(state["task"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.aux_optimizer is not None:
                self.aux_optimizer.load_state_dict(state["aux_optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"run folder {self.run_folder.path}: its checkpoint does not fit the recipe's components: {error}. Was "
                "a plugin changed since the run began?"
            ) from None
        self.scales, self.balanced = state["scales"], state["balanced"]
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        return state["step"]

    def save(self, step: int) -> Path:
        """Write a checkpoint after `step` steps."""
        state = {
            "step": step,
            "task": self.setup.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "aux_optimizer": self.aux_optimizer.state_dict() if self.aux_optimizer else None,
            "scales": self.scales,
            "balanced": self.balanced,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "teacher_fingerprint": self.setup.teacher_fingerprint,
        }
        return save_checkpoint(self.run_folder.checkpoints, step, state)

    def run(self, info: RunInfo, stop: StopRequest) -> None:
        """Take all steps that are left, or those until a stop is asked for, then write the trained model."""
        self.hook.run_started(run=info)
        recipe, step = self.recipe, info.start_step
        self.task.train()
        data = recipe.data
        stream = batches(self.setup.dataset, data.batch_size, step, recipe.num_steps - step, data.num_workers)
        window: MetricsWindow | None = None
        for images in stream:
            index, step_in_phase = self.setup.timeline.at(step)
            phase = self.setup.timeline.phases[index]
            if window is None or step_in_phase == 0:
                self._enter(phase)
                self.hook.phase_started(run=info, phase=phase, step=step)
                window = MetricsWindow(list(phase.weights), step)
            self._step(images, phase, step, step_in_phase, window)
            step += 1
            if step % recipe.log_every == 0 or step_in_phase == phase.num_steps - 1:
                self._log(info, phase, step, step_in_phase, window)
                window = MetricsWindow(list(phase.weights), step)
            if step % recipe.checkpoint_every == 0 or step == recipe.num_steps or stop.made:
                self._check_finite(window)
                if not all(bool(parameter.isfinite().all()) for parameter in self.parameters):
                    self._stop("a weight", step - 1)
                self.hook.checkpoint_saved(run=info, step=step, path=self.save(step))
            if stop.made and step < recipe.num_steps:
                raise TrainingStopped(f"run {info.name}: stopped after step {step} of {recipe.num_steps}, and saved.")
        part = recipe.trains
        self.setup.codec.module.eval().cpu()
        save_model(self.run_folder.model, self.setup.codec, recipe.pair.name, recipe.pair.options, part, recipe.lmbda)
        self.hook.run_finished(run=info, model=self.run_folder.model)

    def _step(self, images: Tensor, phase: Phase, step: int, step_in_phase: int, window: MetricsWindow) -> None:
        # Channels-last batches corrupt the heap on a CPU (oneDNN issue 6035), whoever made them.
        images = images.to(self.accelerator.device, non_blocking=True).contiguous(memory_format=torch.contiguous_format)
        weights = phase.weights_at(step_in_phase)
        taps: dict[str, Tensor] = {}
        if weights and self.setup.pair is not None:
            roles = set().union(*(self.setup.task.term(name).required_taps() for name in weights))
            with self.accelerator.autocast():
                taps = self.setup.pair.run_teacher(images, sorted(roles))
        losses = self.task(images, taps, weights)
        if step_in_phase == 0:
            self.balanced = []
        if phase.balance is not None and (new := [name for name in weights if name not in self.balanced]):
            self.scales.update(self.setup.task.balanced_scales(losses, phase.balance, new))
            self.balanced += new
        total = losses.rd.cost
        for name, loss in losses.terms.items():
            total = total + weights[name] * self.scales.get(name, 1.0) * loss
        factor = phase.learning_rate * learning_rate_factor(self.recipe.optimizer, step, self.recipe.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.learning_rate * factor
        self.optimizer.zero_grad()
        self.accelerator.backward(total)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.recipe.optimizer.clip_norm)
        window.add(step, losses, torch.as_tensor(norm))
        try:
            self.optimizer.step()
        except RuntimeError:  # SOAP's linear algebra, where a gradient is not finite
            self._check_finite(window)
            raise
        aux_loss = self.setup.codec.aux_loss()
        if self.aux_optimizer is not None and aux_loss is not None and aux_loss.requires_grad:
            self.aux_optimizer.zero_grad()
            aux_loss.backward()
            self.aux_optimizer.step()

    def _enter(self, phase: Phase) -> None:
        """Freeze what the phase freezes, and let its terms measure what they need."""
        for name, parameter in self.setup.codec.module.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in phase.trainable))
        for name in phase.weights:
            term = self.setup.task.term(name)
            if term.needs_calibration:
                self._calibrate(name)

    def _calibrate(self, name: str) -> None:
        assert self.setup.pair is not None
        term, path = self.setup.task.term(name), self.run_folder.calibration(name)
        about = {
            "term": name,
            "config": json.loads(term.config.model_dump_json()),
            "teacher_fingerprint": self.setup.teacher_fingerprint,
        }
        if path.exists():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                if {key: stored[key] for key in about} == about:
                    return term.load_calibration(stored["record"])
            except (ValueError, KeyError):
                pass  # damaged: measure again
        teacher = self.setup.pair.teacher
        device = self.accelerator.device

        def run(images: Tensor) -> Any:
            with torch.no_grad():
                return teacher.forward(images.to(device).contiguous())

        record = term.calibrate(Calibration(run, self._calibration_batches))
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({**about, "record": record}, indent=1), encoding="utf-8")
        partial.replace(path)
        return term.load_calibration(json.loads(path.read_text(encoding="utf-8"))["record"])

    def _calibration_batches(self, num_crops: int) -> Iterator[Tensor]:
        data = self.recipe.data
        dataset: CropDataset = self.setup.dataset.with_seed(self.recipe.seed + CALIBRATION_SEED)
        return batches(dataset, data.batch_size, 0, math.ceil(num_crops / data.batch_size))

    def _log(self, info: RunInfo, phase: Phase, step: int, step_in_phase: int, window: MetricsWindow) -> None:
        self._check_finite(window)
        means = window.means()
        metrics: dict[str, float | int | str] = {
            "step": step,
            "phase": phase.name,
            "rate_bpp": means["rate"],
            "psnr_db": psnr_from_mse(means["mse"]),
            "rd_cost": means["rate-distortion"],
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": means["gradient"],
            "seconds_per_step": window.seconds_per_step(step),
        }
        for name, weight in phase.weights_at(step_in_phase).items():
            metrics[f"loss/{name}"] = means[name]
            metrics[f"weight/{name}"] = weight * self.scales.get(name, 1.0)
        self.hook.metrics_logged(run=info, metrics=metrics)

    def _check_finite(self, window: MetricsWindow) -> None:
        bad = window.first_not_finite()
        if bad is not None:
            self._stop(bad[1], bad[0])

    def _stop(self, name: str, step: int) -> NoReturn:
        state, _ = self.run_folder.newest_state()
        kept = f"The checkpoint after step {state['step']} is kept" if state else "No checkpoint was written yet"
        raise TrainingError(
            f"run {self.run_folder.path.name}: {name} was not finite at step {step}. {kept}; lower the learning rate "
            "or the term's weight and start a new run, or look at the batch of that step."
        )
