"""The first part of a page: what distillation is worth, in a sentence, in figures, and as curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from markupsafe import Markup

from ..evaluation.bd import MIN_POINTS, BDResult
from ..family.gains import TEACHER, Gains, Spread, gains
from ..family.plan import CONTROL
from ..family.report import VariantResult, summarise
from . import plots
from .codecs import Codecs
from .headline import Difference, cost_difference, measured, time_cut
from .runs import Runs


@final
@dataclass(frozen=True)
class Against:
    """The main variant against another one.

    Attributes:
        other: `teacher` or `control`.
        bd: BD-rate, where both have enough lambdas.
        cost: RD cost at the main run's lambda, where there is no BD-rate.
        why: why there is no BD-rate.
        spread: of the BD-rate over seeds, where more than one has all lambdas.
    """

    other: str
    bd: BDResult | None
    cost: Difference | None
    why: str
    spread: Spread | None = None

    @property
    def share(self) -> float:
        """BD-rate or cost difference, as a share."""
        if self.bd is not None:
            return self.bd.rate_percent / 100
        assert self.cost is not None
        return self.cost.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval over pictures, as shares."""
        if self.bd is not None:
            return (self.bd.interval[0] / 100, self.bd.interval[1] / 100) if self.bd.interval else None
        assert self.cost is not None
        return None if self.cost.low is None or self.cost.high is None else (self.cost.low, self.cost.high)

    @property
    def measure(self) -> str:
        """What is compared."""
        return "BD-rate" if self.bd is not None else "RD cost"


@final
@dataclass(frozen=True)
class Comparison:
    """What the first part of a page shows.

    Attributes:
        against: teacher and control, as far as there are any.
        parameter_cut: 1 - student / teacher, or None.
        compute_cut: the same of multiply-accumulates.
        time_cut: the same of coding times.
        lines: means of every variant and lambda.
        num_images: pictures in them.
        curve: rate-distortion plot.
        variants: differences to the control at the main lambda, and to which: a plot, for a family.
    """

    against: tuple[Against, ...]
    parameter_cut: float | None
    compute_cut: float | None
    time_cut: float | None
    lines: tuple[VariantResult, ...]
    num_images: int
    curve: Markup | None
    variants: Markup | None


def series_names(runs: Runs) -> dict[str, str]:
    """Return variant -> series for those that are drawn in colour."""
    return {CONTROL: "control", runs.main.variant: "student", TEACHER: "teacher"}


def compare_variants(runs: Runs, codecs: Codecs) -> Comparison:
    """Compare the main variant with its teacher and its control."""
    jobs = measured(runs.runs)
    figures = gains([job for job in jobs if job.variant in (runs.main.variant, TEACHER, CONTROL)])
    lines = tuple(summarise(jobs))
    against = tuple(each for other in (CONTROL, TEACHER) if (each := _against(runs, other, figures)))
    student, teacher = codecs.student, codecs.teacher
    cuts: list[float | None] = [None, None]
    if student and teacher:
        cuts = [
            1 - student.num_parameters / teacher.num_parameters,
            1 - student.kmac_per_pixel / teacher.kmac_per_pixel,
        ]
    return Comparison(
        against=against,
        parameter_cut=cuts[0],
        compute_cut=cuts[1],
        time_cut=time_cut(runs),
        lines=lines,
        num_images=max((len(job.images) for job in jobs), default=0),
        curve=plots.rate_distortion(lines, series_names(runs)) if lines else None,
        variants=_variants(runs),
    )


def _against(runs: Runs, other: str, figures: Gains) -> Against | None:
    variant = runs.main.variant
    found = [result for result in figures.results if (result.anchor, result.test) == (other, variant)]
    cost = cost_difference(runs, other)
    if found:
        return Against(other, found[0], cost, "", figures.spreads.get((other, variant)))
    if cost is None:
        return None
    sides = (
        {run.recipe.lmbda for run in runs.runs if run.results and run.variant == name} for name in (variant, other)
    )
    lmbdas = sorted(set.intersection(*sides))
    why = " ".join(note for note in figures.notes if f"{variant} against {other}" in note)
    if len(lmbdas) < MIN_POINTS:
        names = ", ".join(f"{lmbda:g}" for lmbda in lmbdas)
        why = f"A BD-rate needs {MIN_POINTS} lambdas that both have; so far they share {names}."
    return Against(other, None, cost, why)


def _variants(runs: Runs) -> Markup | None:
    if not runs.is_family:
        return None
    rows: list[tuple[str, Difference, list[float]]] = []
    for variant in dict.fromkeys(run.variant for run in runs.runs):
        difference = cost_difference(runs, CONTROL, variant)
        if difference is not None and variant != TEACHER:
            rows.append((variant, difference, _by_seed(runs, variant)))
    rows.sort(key=lambda row: row[1].value)
    return plots.differences(rows, series_names(runs), CONTROL) if rows else None


def _by_seed(runs: Runs, variant: str) -> list[float]:
    """Return each seed's difference to the control of the same seed."""
    lmbda = runs.main.recipe.lmbda
    costs: dict[str, dict[int, float]] = {variant: {}, CONTROL: {}}
    for run in runs.runs:
        if run.variant in costs and run.results and run.recipe.lmbda == lmbda:
            costs[run.variant][run.recipe.seed] = run.results["averages"]["rd_cost"]
    shared = sorted(costs[variant].keys() & costs[CONTROL].keys())
    return [costs[variant][seed] / costs[CONTROL][seed] - 1 for seed in shared] if len(shared) > 1 else []
