"""Rate schedules as components: what the learning rate is at each step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, final

from pydantic import Field, PositiveInt

from ...hooks.components import Component, ComponentConfig

_Factor = Annotated[float, Field(gt=0, lt=1)]


class RateSchedule(Component, ABC):
    """Gives the factor on the recipe's learning rate. Built as `Schedule(config)`.

    Warm-up, the phase's own factor and a run's going back after it diverged multiply it. A schedule that only depends
    on the step has no state; one that follows the validation keeps what it needs in `state_dict`.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def needs_validation(self) -> bool:
        """Whether the schedule follows the validation, so that the recipe must have one."""
        return False

    @abstractmethod
    def factor(self, step: int, num_steps: int) -> float:
        """Return the factor, in [0, 1], at a step of a run.

        Args:
            step: counted from 0.
            num_steps: of the whole run.
        """

    def validated(self, cost: float) -> None:
        """Take note of what a validation measured: the cost that the run reduces, lower is better."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as tensors, numbers and text in dicts and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""


@final
class ConstantRate(RateSchedule):
    """The recipe's learning rate in every step."""

    def factor(self, step: int, num_steps: int) -> float:
        """Return 1."""
        return 1.0


@final
class CosineRate(RateSchedule):
    """Half a cosine from the recipe's learning rate down to 0 at the end of the run.

    Source: Loshchilov and Hutter (2017), arXiv 1608.03983, without restarts.
    """

    def factor(self, step: int, num_steps: int) -> float:
        """Return (1 + cos(pi * step / num_steps)) / 2."""
        return 0.5 * (1 + math.cos(math.pi * step / num_steps))


@final
class StepRate(RateSchedule):
    """Lowers the rate at given steps."""

    class Config(ComponentConfig):
        """Options.

        Attributes:
            at: steps, counted from 0, from which on the rate is lowered once more.
            factor: by which it is multiplied at each of them.
        """

        at: Annotated[list[PositiveInt], Field(min_length=1)]
        factor: _Factor = 0.1

    def factor(self, step: int, num_steps: int) -> float:
        """Return `factor` to the power of the number of steps in `at` that are reached."""
        return self.config.factor ** sum(step >= each for each in self.config.at)


@final
class PlateauRate(RateSchedule):
    """Lowers the rate when the validation has not improved for a while.

    Source: CompressAI's training script (Begaint et al., 2020, arXiv 2011.03029) trains with PyTorch's
    ReduceLROnPlateau. Departure: `factor` and `patience` count validations, of which a run has as many as its recipe
    says, not epochs.
    """

    class Config(ComponentConfig):
        """Options.

        Attributes:
            factor: by which the rate is multiplied.
            patience: validations without a better cost after which that is done.
            improvement: share of the best cost by which a cost must be lower to count as better.
            lowest: factor under which the rate never falls.
        """

        factor: _Factor = 0.5
        patience: PositiveInt = 10
        improvement: Annotated[float, Field(ge=0, lt=1)] = 1e-4
        lowest: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._factor, self._best, self._waited = 1.0, math.inf, 0

    @property
    def needs_validation(self) -> bool:
        """Always."""
        return True

    def factor(self, step: int, num_steps: int) -> float:
        """Return `factor` to the power of the number of plateaus so far, at least `lowest`."""
        return self._factor

    def validated(self, cost: float) -> None:
        """Count the validation as better than the best, or as one more that was waited."""
        if cost < self._best * (1 - self.config.improvement):
            self._best, self._waited = cost, 0
            return
        self._waited += 1
        if self._waited >= self.config.patience:
            self._factor, self._waited = max(self._factor * self.config.factor, self.config.lowest), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the factor, the best cost and how many validations were waited."""
        return {"factor": self._factor, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self._factor, self._best, self._waited = state["factor"], state["best"], state["waited"]
