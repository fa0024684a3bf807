"""The core's own plugin: what a recipe uses when it names nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, final

from pydantic import Field

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
            balance: see `Phase.balance`; weights are taken as they are where it is not set.
        """

        weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
        balance: Annotated[float, Field(gt=0)] | None = None

    def phases(self, num_steps: int, terms: Sequence[str]) -> list[Phase]:
        """Return the one phase; in a run without losses (a control) it has no weights."""
        weights = {**dict.fromkeys(terms, 1.0), **self.config.weights} if terms else {}
        return [Phase("train", num_steps, weights, balance=self.config.balance)]


@hookimpl
def register_phase_schedules(register: Callable[[str, type[PhaseSchedule]], None]) -> None:
    """Register the core's schedule."""
    register("constant", Constant)
