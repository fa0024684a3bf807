"""One stage of the teacher after the other replaced by the student's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, final

from pydantic import Field, field_validator

import distillkit


@final
class Progressive(distillkit.PhaseSchedule):
    """Replaces stages of the teacher by the student's, one more in each phase; then the student trains by itself.

    In phase k the first k stages of the student run inside the frozen teacher and are trained there on rate and
    distortion, so each learns beside parts that already work. The loss terms are on in the last phase.

    Source: progressive module replacement for learned image codecs, as in AsymLLIC (Wang et al., 2024, arXiv
    2412.17270).
    Departure: the stages that were replaced before are trained on, too, and all of the student at the end.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            stages: paths of modules that teacher and student have, in the order of their replacement; a list of several
                is replaced at once.
            share: of the run's steps, divided evenly among the stages; the student trains alone in the others.
            weight: of each loss term in the last phase.
            balance: see `Phase.balance`, in the last phase.
        """

        stages: tuple[str | tuple[str, ...], ...] = ("g_s", "g_a")
        share: Annotated[float, Field(gt=0, lt=1)] = 0.5
        weight: Annotated[float, Field(gt=0)] = 1.0
        balance: Annotated[float, Field(gt=0)] | None = None

        @field_validator("stages")
        @classmethod
        def _some(cls, stages: tuple[str | tuple[str, ...], ...]) -> tuple[str | tuple[str, ...], ...]:
            if not stages:
                raise ValueError("expected at least one stage.")
            return stages

    @property
    def needs_teacher(self) -> bool:
        """Always."""
        return True

    def phases(self, num_steps: int, terms: Sequence[str]) -> list[distillkit.Phase]:
        """Return a phase for each stage, and the last one."""
        config: Progressive.Config = self.config
        groups = [(stage,) if isinstance(stage, str) else stage for stage in config.stages]
        ends = [round(num_steps * config.share * number / len(groups)) for number in range(len(groups) + 1)]
        phases = [
            distillkit.Phase(
                f"replace {number}", end - start, graft=tuple(name for each in groups[:number] for name in each)
            )
            for number, (start, end) in enumerate(pairwise(ends), 1)
        ]
        weights = {term: config.weight for term in terms}
        balance = config.balance if terms else None
        return [*phases, distillkit.Phase("alone", num_steps - ends[-1], weights, balance=balance)]
