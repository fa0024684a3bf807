"""The core's own plugin: what a recipe uses when it names nothing else."""

from __future__ import annotations

from collections.abc import Callable

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
from ..training.phases import PhaseSchedule
from ..training.schedules import Constant, Listed
from .hookspecs import hookimpl


@hookimpl
def register_phase_schedules(register: Callable[[str, type[PhaseSchedule]], None]) -> None:
    """Register the core's schedules."""
    register("constant", Constant)
    register("phases", Listed)


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
