"""Phases and schedules: a pure function from the step to the phase and the weights of the loss terms."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, final

from ..errors import RecipeError, did_you_mean
from ..hooks.components import Component
from ..model.lmbda import Lmbda
from ..model.surrogate import Surrogate


@final
@dataclass(frozen=True)
class Ramp:
    """A weight that moves linearly from `start` to `stop` within `num_steps` steps of its phase, then stays there."""

    start: float
    stop: float
    num_steps: int

    def at(self, step: int) -> float:
        """Return the weight at this step of the phase, counted from 0."""
        if step >= self.num_steps:
            return self.stop
        return self.start + (self.stop - self.start) * step / self.num_steps


@final
@dataclass(frozen=True)
class Phase:
    """A stretch of a run.

    Attributes:
        name: as shown in logs.
        num_steps: length.
        weights: loss term -> weight; a term that is not named is off, and a teacher that no term needs does not run.
        learning_rate: factor on the recipe's learning rate.
        balance: if set, each term is scaled once, at the phase's first step that it is on, so that with weight 1 the
            norm of its gradient on the student's parameters is `balance` times that of the rate-distortion loss.
        trainable: patterns (fnmatch) of the student's parameter names; all others are frozen in this phase.
        rd_weight: of the rate-distortion cost, beside the terms' weights. At 0 it is measured, but trains nothing.
        every: the terms are on in every N-th step, at N times their weight; in the others the student trains
            on rate-distortion alone and the teacher does not run. (Karras et al., 2020, arXiv 1912.04958, call it lazy
            regularisation.)
        crop: side of the crops in pixels; None takes the recipe's.
        batch_size: crops per step, over all processes; None takes the recipe's.
        objective: what the phase trains for, as a recipe has it (`{"name": "core.ms_ssim"}`); None takes the recipe's,
            for which the run is always validated, and which its file names.
        lmbda: trade-off of that objective; None takes the recipe's.
        surrogate: what the decoder receives in training: `noise`, or `rounding` with a straight-through gradient; None
            leaves the codec's own, see `CodecAdapter.set_surrogate`.
        graft: paths of the student's modules that run inside the frozen teacher in this phase, in place of its modules;
            only they are trained. Empty: the student runs by itself. See `TeachingPair.graft`.
        teacher_forcing: give the student's entropy model and synthesis the teacher's latent y instead of the student's;
            only losses train its analysis then, and one must compare `latent` in every step, as `kd.latent` does.
    """

    name: str
    num_steps: int
    weights: Mapping[str, float | Ramp] = field(default_factory=dict)
    learning_rate: float = 1.0
    balance: float | None = None
    trainable: tuple[str, ...] = ("*",)
    every: int = 1
    rd_weight: float | Ramp = 1.0
    crop: int | None = None
    batch_size: int | None = None
    objective: Mapping[str, Any] | None = None
    lmbda: Lmbda | None = None
    surrogate: Surrogate | None = None
    graft: tuple[str, ...] = ()
    teacher_forcing: bool = False

    def trains(self, name: str, allowed: Sequence[str]) -> bool:
        """Return whether a parameter of this name is trained, if only names that fit an `allowed` pattern may be."""
        if self.graft and not any(name.startswith(f"{stage}.") for stage in self.graft):
            return False
        return all(any(fnmatchcase(name, each) for each in patterns) for patterns in (self.trainable, allowed))

    def weights_at(self, step: int) -> dict[str, float]:
        """Return the weights above zero at this step of the phase, counted from 0."""
        if step % self.every:
            return {}
        weights = {name: _weight_at(w, step) for name, w in self.weights.items()}
        return {name: weight * self.every for name, weight in weights.items() if weight > 0}

    def rd_weight_at(self, step: int) -> float:
        """Return the weight of the rate-distortion cost at this step of the phase, counted from 0."""
        return _weight_at(self.rd_weight, step)

    def without_teacher(self, terms: Sequence[str]) -> Phase:
        """Return the phase as a run has it in which no term has a teacher, such as a control.

        Weights of terms that the run has not are left out. Where some are, or where the run has no terms at all, the
        rate-distortion cost takes their place: its weight is 1. Stages are grafted nowhere and latents are the
        student's: it runs by itself.
        """
        alone = replace(self, graft=(), teacher_forcing=False)
        weights = {name: weight for name, weight in self.weights.items() if name in terms}
        if terms and len(weights) == len(self.weights):
            return alone
        return replace(alone, weights=weights, rd_weight=1.0, balance=self.balance if weights else None)


def _weight_at(weight: float | Ramp, step: int) -> float:
    return weight.at(step) if isinstance(weight, Ramp) else weight


class PhaseSchedule(Component, ABC):
    """Divides a run into phases. Built as `Schedule(config)`."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def needs_teacher(self) -> bool:
        """Whether a phase grafts stages of the student into the teacher."""
        return False

    @abstractmethod
    def phases(self, num_steps: int, terms: Sequence[str]) -> list[Phase]:
        """Return the phases of a run of `num_steps` steps with these loss terms (full names); lengths must add up.

        A run in which no term has a teacher (a control) has the phases of the others, see `Phase.without_teacher`.

        Raises:
            ValueError: the schedule has no place for one of the terms.
        """


@final
class Timeline:
    """The phases of a run, checked, and looked up by step.

    Attributes:
        phases: in their order; those of no steps are left out, unless the run has none.
        notes: what the user should know of them.
    """

    def __init__(
        self, phases: Sequence[Phase], num_steps: int, terms: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        self.notes = list(notes)
        self.phases = [phase for phase in phases if phase.num_steps != 0 or num_steps == 0]
        lengths = [phase.num_steps for phase in self.phases]
        if sum(lengths) != num_steps or min(lengths, default=0) < 0:
            got = ", ".join(f"{phase.name} {phase.num_steps}" for phase in self.phases) or "none"
            raise RecipeError(f"schedule: expected phases of {num_steps} steps together, got {got}; fix its lengths.")
        names = [phase.name for phase in self.phases]
        for phase in self.phases:
            if names.count(phase.name) > 1:
                raise RecipeError(f"schedule: two phases are called '{phase.name}'; rename one.")
            _check(phase)
        named = {name for phase in self.phases for name in phase.weights}
        for name in sorted(named - set(terms)):
            hint = did_you_mean(name, terms)
            raise RecipeError(
                f"schedule: a phase gives a weight to '{name}', which is not in the recipe's losses.{hint}"
            )
        for name in sorted(set(terms) - named):
            raise RecipeError(f"recipe losses.{name}: no phase of the schedule gives it a weight; name it there.")
        self._ends = list(accumulate(phase.num_steps for phase in self.phases))

    def at(self, step: int) -> tuple[int, int]:
        """Return the index of the phase that holds this step of the run, and the step's number within the phase."""
        index = bisect_right(self._ends, step)
        return index, step - (self._ends[index] - self.phases[index].num_steps)


def _check(phase: Phase) -> None:
    where = f"schedule: phase '{phase.name}'"
    if phase.every < 1:
        raise RecipeError(f"{where}: expected every >= 1, got {phase.every}; change it.")
    for name, value in (("crop", phase.crop), ("batch_size", phase.batch_size)):
        if value is not None and value < 1:
            raise RecipeError(f"{where}: expected a {name} of at least 1, got {value}; change it.")
    if not 0 < phase.learning_rate < math.inf:
        raise RecipeError(f"{where}: expected a learning_rate above 0, got {phase.learning_rate}; change it.")
    for name, weight in (*phase.weights.items(), ("rate-distortion", phase.rd_weight)):
        ends = (weight.start, weight.stop) if isinstance(weight, Ramp) else (weight,)
        if not all(0 <= end < math.inf for end in ends):
            raise RecipeError(f"{where}: expected a weight of at least 0 for '{name}', got {weight}; change it.")
    off = not (phase.rd_weight_at(0) and phase.rd_weight_at(phase.num_steps))
    steps = range(phase.num_steps if off else 0)
    idle = next((step for step in steps if not phase.weights_at(step) and phase.rd_weight_at(step) == 0), None)
    if idle is not None:
        raise RecipeError(
            f"{where}: nothing is trained in its step {idle}: rd_weight and every term's weight are 0 there. Give one "
            "of them a weight, or shorten the phase."
        )
    if off and phase.balance is not None:
        raise RecipeError(
            f"{where}: balance compares gradients with those of rate-distortion, whose weight is 0; leave balance out."
        )
