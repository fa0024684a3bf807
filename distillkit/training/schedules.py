"""The core's schedules: one phase, or the phases that the recipe lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, final

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator

from ..hooks.components import ComponentConfig
from ..model.lmbda import Lmbda, as_lmbda
from .phases import Phase, PhaseSchedule, Ramp

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@final
class Constant(PhaseSchedule):
    """One phase: every loss term on from the first step to the last."""

    class Config(ComponentConfig):
        """Options.

        Attributes:
            weights: loss term -> weight; 1 for a term that is not named.
            rd_weight: see `Phase.rd_weight`; 1 in a run without losses.
            balance: see `Phase.balance`; where it is not set, weights are used unchanged.
        """

        weights: dict[str, Positive] = Field(default_factory=dict)
        balance: Positive | None = None
        rd_weight: Weight = 1.0

    def phases(self, num_steps: int, terms: Sequence[str]) -> list[Phase]:
        """Return the one phase."""
        config, weights = self.config, {**dict.fromkeys(terms, 1.0), **self.config.weights}
        return [Phase("train", num_steps, weights, balance=config.balance, rd_weight=config.rd_weight)]


class Change(ComponentConfig):
    """A weight that moves linearly over its phase.

    Attributes:
        start: at the phase's first step.
        stop: at its last.
    """

    start: Weight
    stop: Weight


#: A number or a change; the kind is chosen beforehand, so that an error is of the one that was meant.
NumberOrChange = Annotated[
    Annotated[Weight, Tag("(number)")] | Annotated[Change, Tag("(change)")],
    Discriminator(lambda value: "(change)" if isinstance(value, dict | Change) else "(number)"),
]


class ListedPhase(ComponentConfig):
    """A phase of the recipe; what is left out is as in `Phase`.

    Attributes:
        name: as shown in logs.
        share: of the run's steps.
        weights: loss term -> weight, or `{start = 1.0, stop = 0.0}`.
        rd_weight: of the rate-distortion cost, likewise.
        learning_rate: factor on the recipe's learning rate.
        balance: ratio of gradient norms by which terms are scaled once.
        every: the terms are on in every N-th step, at N times their weight.
        trainable: patterns of the student's parameter names; all others are frozen.
        crop: side of the crops in pixels, in place of the recipe's.
        batch_size: crops per step, in place of the recipe's.
        objective: in place of the recipe's, by name, with options.
        lmbda: trade-off of that objective, in place of the recipe's.
        surrogate: what the decoder receives in training: `noise`, or `rounding` with a straight-through gradient.
        graft: the student's modules that run inside the teacher, such as `g_s`; only they are trained.
        teacher_forcing: give the student's entropy model and synthesis the teacher's latent instead of the student's.
    """

    name: str
    share: Annotated[float, Field(gt=0, le=1)]
    weights: dict[str, NumberOrChange] = Field(default_factory=dict)
    rd_weight: NumberOrChange = 1.0
    learning_rate: Positive = 1.0
    balance: Positive | None = None
    every: PositiveInt = 1
    trainable: tuple[str, ...] = ("*",)
    crop: PositiveInt | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    objective: dict[str, Any] | None = None
    lmbda: Any = None
    surrogate: Literal["noise", "rounding"] | None = None
    graft: tuple[str, ...] = ()
    teacher_forcing: bool = False

    @field_validator("lmbda", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> Lmbda | None:
        return None if value is None else as_lmbda(value)

    @field_validator("objective")
    @classmethod
    def _named(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and not isinstance(value.get("name"), str):
            raise ValueError('expected a `name`, as in {name = "core.ms_ssim"}; add it.')
        return value

    def phase(self, num_steps: int) -> Phase:
        """Return the phase."""

        def at(weight: float | Change) -> float | Ramp:
            return Ramp(weight.start, weight.stop, max(1, num_steps - 1)) if isinstance(weight, Change) else weight

        weights: Mapping[str, float | Ramp] = {term: at(weight) for term, weight in self.weights.items()}
        return Phase(
            self.name,
            num_steps,
            weights,
            self.learning_rate,
            self.balance,
            self.trainable,
            self.every,
            at(self.rd_weight),
            self.crop,
            self.batch_size,
            self.objective,
            self.lmbda,
            self.surrogate,
            self.graft,
            self.teacher_forcing,
        )


@final
class Listed(PhaseSchedule):
    """The phases that the recipe lists, one `[[schedule.phases]]` after the other."""

    class Config(ComponentConfig):
        """Options.

        Attributes:
            phases: each with a `name` and its `share` of the steps; see `distillkit.Phase` for what it may change.
        """

        phases: tuple[ListedPhase, ...]

    @property
    def needs_teacher(self) -> bool:
        """Whether a phase grafts."""
        return any(phase.graft for phase in self.config.phases)

    def phases(self, num_steps: int, terms: Sequence[str]) -> list[Phase]:
        """Return the phases.

        Raises:
            ValueError: the shares do not add up to 1.
        """
        listed: tuple[ListedPhase, ...] = self.config.phases
        ends = [0.0, *accumulate(each.share for each in listed)]
        if abs(ends[-1] - 1) > 1e-6:
            raise ValueError(f"expected shares that add up to 1, got {ends[-1]:.6g}; change them.")
        steps = [round(num_steps * end) for end in ends]
        lengths = [last - first for first, last in pairwise(steps)]
        return [each.phase(length) for each, length in zip(listed, lengths, strict=True)]
