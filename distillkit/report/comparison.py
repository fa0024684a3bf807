"""The first part of a page: what distillation is worth, in a sentence, in figures, and as curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from markupsafe import Markup

from ..evaluation.bd import MIN_POINTS, BDResult
from ..evaluation.curve import Metric
from ..family.gains import TEACHER, Gains, SeedSpread, gains
from ..family.plan import CONTROL
from ..family.tables import VariantResult, summarise
from . import plots
from .codecs import Codecs
from .headline import Difference, cost_difference, measured, time_cut
from .runs import Runs

#: Objective -> the quality whose distortion alone is in its cost.
IN_COST: dict[str, Metric] = {"core.mse": "psnr", "core.ms_ssim": "ms-ssim"}


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
    spread: SeedSpread | None = None

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
        curves: rate-distortion plots, the quality that was trained for first.
        variants: differences to the control at the main lambda, for a family.
    """

    against: tuple[Against, ...]
    parameter_cut: float | None
    compute_cut: float | None
    time_cut: float | None
    lines: tuple[VariantResult, ...]
    num_images: int
    curves: tuple[Markup, ...]
    variants: Variants | None


@final
@dataclass(frozen=True)
class Variants:
    """Every variant's RD cost against the control's.

    Attributes:
        plot: of them.
        intervals: whether there are intervals in it.
        seeds: whether there are single seeds in it.
    """

    plot: Markup
    intervals: bool
    seeds: bool


def series_names(runs: Runs) -> dict[str, str]:
    """Return variant -> series for those that are drawn in colour."""
    return {CONTROL: "control", runs.main.variant: "student", TEACHER: "teacher"}


def compare_variants(runs: Runs, codecs: Codecs) -> Comparison:
    """Compare the main variant with its teacher and its control."""
    jobs = measured(runs.runs)
    figures = gains([job for job in jobs if job.variant in (runs.main.variant, TEACHER, CONTROL)])
    places = {name: place for place, name in enumerate(dict.fromkeys(job.variant for job in jobs))}
    lines = tuple(sorted(summarise(jobs), key=lambda line: (places[line.variant], line.lmbda)))
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
        curves=_curves(runs, lines),
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
    sides = ({lmbda for run in runs.runs if run.variant == name for lmbda in run.points} for name in (variant, other))
    lmbdas = sorted(set.intersection(*sides))
    why = " ".join(note for note in figures.notes if f"{variant} against {other}" in note)
    if len(lmbdas) < MIN_POINTS:
        names = ", ".join(f"{lmbda:g}" for lmbda in lmbdas)
        why = f"A BD-rate needs {MIN_POINTS} lambdas that both have; so far they share {names}."
    return Against(other, None, cost, why)


def _curves(runs: Runs, lines: Sequence[VariantResult]) -> tuple[Markup, ...]:
    """Draw each quality that all lines have; the one that was trained for leads."""
    order: tuple[Metric, ...] = ("psnr", "ms-ssim") if runs.metric == "psnr" else ("ms-ssim", "psnr")
    in_cost = IN_COST.get(runs.main.recipe.objective.name)
    return tuple(
        plots.rate_distortion(lines, series_names(runs), metric, in_cost)
        for metric in order
        if lines and all(line.quality_db(metric) is not None for line in lines)
    )


def _variants(runs: Runs) -> Variants | None:
    if not runs.is_family:
        return None
    rows: list[tuple[str, Difference, list[float]]] = []
    for variant in dict.fromkeys(run.variant for run in runs.runs):
        difference = cost_difference(runs, CONTROL, variant)
        if difference is not None and variant != TEACHER:
            rows.append((variant, difference, _by_seed(runs, variant)))
    rows.sort(key=lambda row: row[1].value)
    if not rows:
        return None
    intervals = any(difference.low is not None for _, difference, _ in rows)
    plot = plots.differences(rows, series_names(runs), CONTROL)
    return Variants(plot, intervals, any(seeds for _, _, seeds in rows))


def _by_seed(runs: Runs, variant: str) -> list[float]:
    """Return each seed's difference to the control of the same seed."""
    lmbda = runs.main.lmbda
    costs: dict[str, dict[int, float]] = {variant: {}, CONTROL: {}}
    for run in runs.runs:
        if run.variant in costs and lmbda in run.points:
            costs[run.variant][run.recipe.seed] = run.points[lmbda]["averages"]["rd_cost"]
    shared = sorted(costs[variant].keys() & costs[CONTROL].keys())
    return [costs[variant][seed] / costs[CONTROL][seed] - 1 for seed in shared] if len(shared) > 1 else []
