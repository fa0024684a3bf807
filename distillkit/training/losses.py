"""Loss terms, and what they are given."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from ..hooks.components import Component, ComponentConfig
from ..model.adapters import CodecOutput
from ..taps.bank import TapShapes
from ..taps.pair import TapPair
from .step.graphs import CannotCaptureError


class LossConfig(ComponentConfig):
    """Options of a loss term. Weights are not among them: the phase owns them."""


@dataclass(frozen=True)
class Step:
    """What a loss term sees of a training step.

    Attributes:
        images: the batch, shape (B, C, H, W), range [0, 1].
        output: the student's output for it.
        taps: the features of the taps that the active terms asked for, by role; the teacher's are those of the term's
            own teacher.
        number: of the step within the run, counted from 0.
        quality: of each image, in [0, 1], shape (B,); None for a student of one rate.
        teacher_output: the teacher's output for the batch, without gradient; None unless a term asks for it.
    """

    images: Tensor
    output: CodecOutput
    taps: Mapping[str, TapPair]
    number: int = 0
    quality: Tensor | None = None
    teacher_output: CodecOutput | None = None


@final
class RecordedStep(Step):
    """A step that is recorded, to be replayed with other numbers: a term that reads the number cannot be."""

    def __getattribute__(self, name: str) -> Any:
        """Return an attribute.

        Raises:
            CannotCaptureError: it is the number.
        """
        if name == "number":
            raise CannotCaptureError("a loss term reads the number of the step")
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Calibration:
    """What a term may measure before the first phase that gives it a weight.

    Attributes:
        teacher: runs the whole teacher on a batch (eval mode, float32, no gradient): `teacher(images)`, or
            `teacher(images, quality)` for a student of many rates, with the student's quality in [0, 1].
        batches: the calibration set: called with a number of crops, yields batches of shape (B, C, H, W). The same
            crops each time; they come from the training images.
        qualities: of a student of many rates, at which to measure; empty for one of a single rate.
    """

    teacher: Callable[..., CodecOutput]
    batches: Callable[[int], Iterator[Tensor]]
    qualities: tuple[float, ...] = ()


class LossTerm(nn.Module, Component, ABC):
    """A distillation loss: one unweighted scalar per step. Trainable parts (adapters) are ordinary submodules.

    A subclass is built as `Term(config, shapes)`, where `shapes` holds the student's and the teacher's tap shapes.

    Attributes:
        needs_teacher: whether the term compares with a teacher. One that does not (a regulariser) reads no taps and is
            not calibrated; it also works in runs of teachers and of controls, where `shapes` is empty.
        needs_teacher_output: whether the term reads `step.teacher_output`, for which the whole teacher runs.
        needs_own_lmbda: whether what the term takes from the teacher holds only at the teacher's own lambda, so that
            the run must have it, too.
    """

    needs_teacher: ClassVar[bool] = True
    needs_teacher_output: ClassVar[bool] = False
    needs_own_lmbda: ClassVar[bool] = False

    def __init__(self, config: Any, shapes: TapShapes) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def required_taps(self) -> set[str]:
        """Return the roles of the taps that `forward` reads."""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """Return the loss of this step, a scalar, before any weight."""

    @property
    def needs_calibration(self) -> bool:
        """Whether `calibrate` must run, or a record be loaded, before `forward`."""
        return False

    @property
    def kept_channels(self) -> list[int] | None:
        """The teacher's latent channels that a calibrated term keeps, for a report; None if it does not choose."""
        return None

    def calibrate(self, calibration: Calibration) -> dict[str, Any]:
        """Measure what the term needs and return it as a record that JSON can hold."""
        return {}

    def load_calibration(self, record: Mapping[str, Any]) -> None:
        """Take over a record that `calibrate` returned, in this or in an earlier process.

        Raises:
            ValueError: the record does not fit this term's configuration.
        """


def sum_of_bits(likelihoods: Iterable[Tensor]) -> Tensor:
    """Return the information of all latent elements together, in bits."""
    parts = [likelihood.float().log().sum() for likelihood in likelihoods]
    return torch.stack(parts).sum() / -math.log(2)


def psnr_from_mse(mse: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error on the [0, 1] scale."""
    return -10 * math.log10(mse) if mse > 0 else math.inf
