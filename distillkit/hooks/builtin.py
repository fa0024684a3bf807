"""The core's own plugin: what a recipe uses when it names nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, final

from pydantic import Field

from ..training.extensions.base import StepExtension
from ..training.extensions.ema import Ema
from ..training.objectives.objective import MeanSquaredError, Objective
from ..training.objectives.perceptual import PerceptualObjective
from ..training.objectives.similarity import MultiScaleSimilarity, Weighted
from ..training.pace.optimizers import (
    AdamBuilder,
    AdamWBuilder,
    MuonBuilder,
    OptimizerBuilder,
    SgdBuilder,
    SoapBuilder,
)
from ..training.pace.rates import ConstantRate, CosineRate, PlateauRate, RateSchedule, StepRate
from ..training.phases import Phase, PhaseSchedule
from .components import ComponentConfig
from .hookspecs import hookimpl


@final
class Constant(PhaseSchedule):
    """One phase: every loss term on from the first step to the last."""

    class Config(ComponentConfig):
        """Options.

        Attributes:
            weights: loss term -> weight; 1 for a term that is not named.
            rd_weight: see `Phase.rd_weight`; 1 in a run without losses.
            balance: see `Phase.balance`; weights are taken as they are where it is not set.
        """

        weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
        balance: Annotated[float, Field(gt=0)] | None = None
        rd_weight: Annotated[float, Field(ge=0)] = 1.0

    def phases(self, num_steps: int, terms: Sequence[str]) -> list[Phase]:
        """Return the one phase; in a run without losses (a control) it has no weights."""
        weights = {**dict.fromkeys(terms, 1.0), **self.config.weights} if terms else {}
        rd_weight = self.config.rd_weight if terms else 1.0
        return [Phase("train", num_steps, weights, balance=self.config.balance, rd_weight=rd_weight)]


@hookimpl
def register_phase_schedules(register: Callable[[str, type[PhaseSchedule]], None]) -> None:
    """Register the core's schedule."""
    register("constant", Constant)


@hookimpl
def register_objectives(register: Callable[[str, type[Objective]], None]) -> None:
    """Register the core's objectives."""
    register("mse", MeanSquaredError)
    register("ms_ssim", MultiScaleSimilarity)
    register("weighted", Weighted)
    register("lpips", PerceptualObjective)


@hookimpl
def register_optimizers(register: Callable[[str, type[OptimizerBuilder]], None]) -> None:
    """Register the core's optimisers."""
    register("adam", AdamBuilder)
    register("adamw", AdamWBuilder)
    register("muon", MuonBuilder)
    register("sgd", SgdBuilder)
    register("soap", SoapBuilder)


@hookimpl
def register_rate_schedules(register: Callable[[str, type[RateSchedule]], None]) -> None:
    """Register the core's schedules of the learning rate."""
    register("constant", ConstantRate)
    register("cosine", CosineRate)
    register("step", StepRate)
    register("plateau", PlateauRate)


@hookimpl
def register_step_extensions(register: Callable[[str, type[StepExtension]], None]) -> None:
    """Register the core's step extension."""
    register("ema", Ema)
