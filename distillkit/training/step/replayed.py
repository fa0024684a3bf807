"""Steps of a kind, recorded once and replayed: a GPU then waits for Python once a step, not once a kernel."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ..task import StepLosses
from .graphs import CannotCaptureError, Graph

if TYPE_CHECKING:
    from .step import TrainingStep

_LOG = logging.getLogger("distillkit")
_LAUNCHED = 2  #: steps of each kind that are launched one by one: libraries and optimisers get ready in them


@final
@dataclass(frozen=True)
class Inputs:
    """What changes from step to step.

    Attributes:
        images: shape (B, C, H, W), range [0, 1].
        quality: of each image, in [0, 1], shape (B,); None for a student of one rate.
        weights: of the terms that are on, with the scales that balance them.
        rd_weight: of the rate-distortion cost.
        trains_rd: whether that is above 0.
    """

    images: Tensor
    quality: Tensor | None
    weights: Mapping[str, Tensor | float]
    rd_weight: Tensor | float
    trains_rd: bool

    @property
    def kind(self) -> tuple[Any, ...]:
        """What a graph depends on."""
        quality = None if self.quality is None else self.quality.shape
        return tuple(self.weights), self.trains_rd, self.images.shape, quality

    def copy(self) -> Inputs:
        """Return the same in other tensors, which stay where they are."""
        device = self.images.device

        def scalar(value: Tensor | float) -> Tensor:
            return value.clone() if isinstance(value, Tensor) else torch.full((), value, device=device)

        weights = {name: scalar(weight) for name, weight in self.weights.items()}
        quality = None if self.quality is None else self.quality.clone()
        return Inputs(self.images.clone(), quality, weights, scalar(self.rd_weight), self.trains_rd)

    def take_over(self, other: Inputs) -> None:
        """Copy another step's values into these tensors."""
        self.images.copy_(other.images, non_blocking=True)
        if self.quality is not None and other.quality is not None:
            self.quality.copy_(other.quality, non_blocking=True)
        pairs = [(self.weights[name], weight) for name, weight in other.weights.items()]
        for own, value in [*pairs, (self.rd_weight, other.rd_weight)]:
            assert isinstance(own, Tensor)
            if isinstance(value, Tensor):
                own.copy_(value)
            else:
                own.fill_(value)


@final
class Replay:
    """One kind of step as two graphs, between which extensions see the gradients.

    Attributes:
        moves: whether the second graph holds the optimisers' steps, too.
    """

    def __init__(self, make: Callable[[], Graph], step: TrainingStep, inputs: Inputs) -> None:
        """Take buffers; nothing is recorded yet."""
        self._graphs = make(), make()
        self._step, self._inputs = step, inputs.copy()
        self._losses: StepLosses | None = None
        self._norm: Tensor | None = None
        self._gradients: list[tuple[Tensor, Tensor | None]] = []
        self.moves = step.can_record_moves
        self._records_second = True

    def take_over(self, inputs: Inputs) -> None:
        """Set what the next step computes with."""
        self._inputs.take_over(inputs)

    def first(self) -> StepLosses:
        """Compute losses and gradients; the first time, record that.

        Raises:
            CannotCaptureError: it cannot be recorded, and was not done.
        """
        if self._losses is not None:
            self._graphs[0].replay()
            for parameter, gradient in self._gradients:  # another kind of step may have left its own
                parameter.grad = gradient
            return self._losses

        def work() -> None:
            self._losses = self._step.backward(self._inputs, None)

        try:
            self._graphs[0].capture(work)
        except CannotCaptureError:
            self._losses = None
            raise
        assert self._losses is not None
        self._gradients = [(parameter, parameter.grad) for parameter in self._step.task.parameters()]
        return self._losses

    def second(self) -> Tensor:
        """Clip the gradients and, if the optimisers can be recorded, move the weights; return the gradients' norm."""
        if self._norm is not None:
            self._graphs[1].replay()
            return self._norm

        def work() -> None:
            self._norm = self._step.clip()
            if self.moves:
                self._step.move()

        try:
            if self._records_second:
                self._graphs[1].capture(work)
        except CannotCaptureError as error:
            _LOG.warning("clipping and the optimiser are launched one by one, for they cannot be recorded: %s", error)
            self._records_second, self.moves, self._norm = False, False, None
        return self._step.clip() if self._norm is None else self._norm


@final
class ReplayedSteps:
    """The graphs of a phase, one pair for each kind of step.

    Args:
        begin: begins a set of graphs, see `graphs_of`.
        step: what is recorded.
    """

    def __init__(self, begin: Callable[[], Callable[[], Graph]], step: TrainingStep) -> None:
        self._begin, self._step = begin, step
        self._make = begin()
        self._seen: dict[tuple[Any, ...], int] = {}
        self._replays: dict[tuple[Any, ...], Replay | None] = {}

    def forget(self) -> None:
        """Drop all graphs: tensors, or what is trained, have changed."""
        self._seen, self._replays, self._make = {}, {}, self._begin()

    def first(self, inputs: Inputs) -> tuple[Replay, StepLosses] | None:
        """Do the first half of a step, losses and gradients; None where it is launched piece by piece."""
        kind = inputs.kind
        self._seen[kind] = self._seen.get(kind, 0) + 1
        if self._seen[kind] <= _LAUNCHED:
            return None
        if kind not in self._replays:
            gc.collect()  # a gradient's node that an earlier step left behind could spoil the capture
            self._replays[kind] = Replay(self._make, self._step, inputs)
        elif (known := self._replays[kind]) is not None:
            known.take_over(inputs)
        replay = self._replays[kind]
        if replay is None:
            return None
        try:
            return replay, replay.first()
        except CannotCaptureError as error:
            self._replays[kind], self._make = None, self._begin()
            terms = ", ".join(inputs.weights) or "no loss terms"
            _LOG.warning("steps with %s are launched one by one, for they cannot be recorded: %s", terms, error)
            return None
