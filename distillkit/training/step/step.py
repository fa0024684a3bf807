"""What one step computes, and how the weights move."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...model.precision import Precision
from ...recipe.recipe import Recipe
from ..distributed import Ranks
from ..metrics import MetricsWindow
from ..pace.pace import Pace
from ..setup.prepare import Setup
from ..setup.stages import Stage
from ..task import Part, StepLosses
from ..teaching.balance import balanced_scales, buffers_kept
from ..teaching.compiled import CompiledParts
from ..teaching.teachers import Teachers
from .graphs import beside, graphs_of
from .replayed import Inputs, ReplayedSteps


@final
class TrainingStep:
    """The arithmetic of a run's steps.

    Attributes:
        task: student and terms, perhaps behind a wrapper that averages gradients over processes.
        scales: of the terms that were balanced so far: scalars on the device.
        balanced: the terms that this phase has balanced.
    """

    def __init__(
        self,
        recipe: Recipe,
        setup: Setup,
        ranks: Ranks,
        precision: Precision,
        pace: Pace,
        aux_optimizer: Optimizer | None,
        parameters: Sequence[nn.Parameter],
        check_finite: Callable[[MetricsWindow], None],
    ) -> None:
        """Choose how steps are launched; `check_finite` raises where the losses of a window are not finite."""
        self._check_finite = check_finite
        self._recipe, self._setup, self._ranks, self._precision = recipe, setup, ranks, precision
        self._pace, self._aux_optimizer, self._parameters = pace, aux_optimizer, parameters
        self._teachers = Teachers(setup, recipe, ranks.device, precision)
        self.task: nn.Module = setup.task
        self.scales: dict[str, Tensor] = {}
        self.balanced: list[str] = []
        self._compiled: CompiledParts | None = None
        if recipe.compile == "inductor":
            taps = {path for pair in setup.task.pairs.values() for path in pair.tapped("student")}
            self._compiled = CompiledParts(setup.codec.module, taps, "compile", '"graph"')
            setup.notes.append(f"compile inductor: {self._compiled.num_parts} parts are compiled when they first run")
        self._replayed = self._replaying()

    def _replaying(self) -> ReplayedSteps | None:
        choice, ranks = self._recipe.compile, self._ranks
        begin = graphs_of(ranks.device)
        if choice == "none" or (begin is None and choice == "auto"):
            return None
        problem = None
        if begin is None:
            problem = f"{ranks.device.type} has no graphs"
        elif ranks.num > 1:
            problem = "several processes train together"
        elif self._precision.scaler.is_enabled():
            problem = "fp16 looks at every gradient before it moves the weights"
        if begin is None or problem is not None:
            self._setup.notes.append(f"compile {choice}: steps are launched one by one, for {problem}")
            return None
        self._pace.keep_rate_on(ranks.device)
        self._setup.notes.append(f"compile {choice}: steps are recorded as graphs, and replayed")
        return ReplayedSteps(begin, self)

    def enter(self, task: nn.Module) -> None:
        """Begin a phase, or continue from a checkpoint.

        Args:
            task: student and terms, behind a wrapper of this phase.
        """
        self.task = task
        if self._replayed is not None:
            self._replayed.forget()

    def take(self, images: Tensor, stage: Stage, step: int, step_in_phase: int, window: MetricsWindow) -> None:
        """Take one step.

        Args:
            images: this process's share of the batch, shape (B, C, H, W), range [0, 1].
            stage: of the phase.
            step: of the run, counted from 0.
            step_in_phase: of the phase, counted from 0.
            window: gets the figures of the step.
        """
        with nullcontext() if self._replayed is None else beside(self._ranks.device):
            self._take(images, stage, step, step_in_phase, window)

    def _take(self, images: Tensor, stage: Stage, step: int, step_in_phase: int, window: MetricsWindow) -> None:
        device, phase, extensions = self._ranks.device, stage.phase, self._setup.extensions
        # Channels-last batches corrupt the heap on a CPU (oneDNN issue 6035), whoever made them.
        images = images.to(device, non_blocking=True).contiguous(memory_format=torch.contiguous_format)
        samples = stage.samples(step_in_phase, self._ranks)
        quality = self._setup.rates.of_samples(samples, stage.dataset, device)
        weights, rd_weight = phase.weights_at(step_in_phase), phase.rd_weight_at(step_in_phase)
        self._pace.set(step, phase.learning_rate)
        if step_in_phase == 0:
            self.balanced = []
        parts: Iterable[Part] | None = None
        if phase.balance is not None and (new := [name for name in weights if name not in self.balanced]):
            parts = list(self.parts(images, quality, weights))
            self._balance(parts, weights, phase.balance, new)
        scaled = {
            name: weight * self.scales[name] if name in self.scales else weight for name, weight in weights.items()
        }
        inputs = Inputs(images, quality, scaled, rd_weight, rd_weight > 0)
        begun = None if self._replayed is None or parts is not None else self._replayed.first(inputs)
        if begun is not None:
            replay, losses = begun
            extensions.after_backward(step)
            norm = replay.second()
            window.add(step, losses, norm)
            if not replay.moves:
                self._move(window)
        else:
            losses = self.backward(inputs, step, parts)
            extensions.after_backward(step)
            norm = self.clip()
            # A step that float16 leaves out does not move the weights: it counts as 0.
            window.add(step, losses, norm.nan_to_num(0.0, 0.0) if self._precision.scaler.is_enabled() else norm)
            self._move(window)
        extensions.after_step(step)

    def parts(self, images: Tensor, quality: Tensor | None, active: Mapping[str, object]) -> Iterator[Part]:
        """Yield the parts into which a batch is cut, each with what the teachers give for it."""
        number = self._recipe.accumulate
        qualities: Sequence[Tensor | None] = [None] * number if quality is None else quality.chunk(number)
        for part, own in zip(images.chunk(number), qualities, strict=True):
            yield Part(part, self._teachers.teach(part, active.keys(), own), own)

    def backward(self, inputs: Inputs, number: int | None, parts: Iterable[Part] | None = None) -> StepLosses:
        """Compute the losses of a batch and their gradients.

        Args:
            inputs: of the step.
            number: of the step within the run; None where it is recorded, for it would be the same in each replay.
            parts: of the batch, where the teachers have run already.
        """
        accumulate, scaler = self._recipe.accumulate, self._precision.scaler
        self._pace.optimizer.zero_grad()
        done: list[StepLosses] = []
        for part, taught, quality in parts or self.parts(inputs.images, inputs.quality, inputs.weights):
            last = len(done) == accumulate - 1
            with nullcontext() if last else self._ranks.without_averaging(self.task):
                with self._precision.autocast(), self._compiled.active() if self._compiled else nullcontext():
                    losses: StepLosses = self.task(
                        part, taught, inputs.weights, quality, trains_rd=inputs.trains_rd, number=number
                    )
                total = inputs.rd_weight * losses.rd.cost
                for name, loss in losses.terms.items():
                    total = total + inputs.weights[name] * loss
                scaler.scale(total / accumulate).backward()
            done.append(losses)
        scaler.unscale_(self._pace.optimizer)
        return StepLosses.mean(done)

    def clip(self) -> Tensor:
        """Clip the gradients; return the norm that they had."""
        return nn.utils.clip_grad_norm_(self._parameters, self._recipe.optimizer.clip_norm)

    @property
    def can_record_moves(self) -> bool:
        """Whether the optimisers leave nothing on the host."""
        optimizers = [self._pace.optimizer, *([self._aux_optimizer] if self._aux_optimizer else [])]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        return all(group.get("capturable") or group.get("fused") for group in groups)

    def move(self) -> None:
        """Let the optimisers move weights and quantiles."""
        scaler = self._precision.scaler
        scaler.step(self._pace.optimizer)
        scaler.update()
        aux_loss = self._setup.codec.aux_loss()
        if self._aux_optimizer is not None and aux_loss is not None and aux_loss.requires_grad:
            self._aux_optimizer.zero_grad()
            aux_loss.backward()
            self._aux_optimizer.step()

    def _move(self, window: MetricsWindow) -> None:
        try:
            self.move()
        except RuntimeError:  # of linear algebra, where a gradient is not finite
            self._check_finite(window)
            raise

    def _balance(self, parts: Iterable[Part], active: Iterable[str], ratio: float, new: list[str]) -> None:
        """Scale terms that come on, by the gradients of the whole batch; the step that follows sees the same noise."""
        cuda = [self._ranks.device] if self._ranks.device.type == "cuda" else []
        kept = buffers_kept(self._setup.task)
        with torch.random.fork_rng(devices=cuda), self._precision.autocast(unscaled=True), kept:
            if self._precision.name == "fp16":
                parts = [part.in_float32() for part in parts]
            losses = (self._setup.task(part, taught, active, quality) for part, taught, quality in parts)
            parameters = self._setup.task.student.parameters()
            self.scales.update(balanced_scales(parameters, losses, ratio, new, self._ranks.mean))
        self.balanced += new
