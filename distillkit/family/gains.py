"""What each variant of a family gains in rate over the control, and lacks against the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import final

from ..evaluation.bd import MIN_POINTS, BDRefusedError, BDResult, bd_rate
from ..evaluation.curve import Metric, RDCurve, RDPoint
from .plan import CONTROL
from .record import MeasuredJob, common_metric

TEACHER = "teacher"


@final
@dataclass(frozen=True)
class SeedSpread:
    """A BD-rate's spread over seeds.

    Attributes:
        percent: standard deviation of the single seeds' BD-rates, in percentage points.
        num_seeds: that have all lambdas on both sides.
    """

    percent: float
    num_seeds: int


@final
@dataclass(frozen=True)
class Gains:
    """BD-rates over the lambdas and seeds that both sides have.

    Attributes:
        results: of every variant against the control, then of every variant against the teacher.
        notes: why other figures are missing, one sentence each.
        spreads: (anchor, variant) -> the spread of single seeds' BD-rates, where more than one has all lambdas.
    """

    results: tuple[BDResult, ...]
    notes: tuple[str, ...]
    spreads: Mapping[tuple[str, str], SeedSpread]


_Group = list[MeasuredJob]  # of one lambda: a run for each seed


def gains(jobs: Sequence[MeasuredJob]) -> Gains:
    """Return the BD-rates of a family's variants; rate and quality are means over seeds at each lambda.

    The quality is the one that all runs were trained for, PSNR where they differ. A model of many rates is a curve by
    itself: its points need not have the other side's lambdas.

    The intervals are over pictures: how the figure would change with other pictures of the kind, not with other seeds.
    """
    metric = common_metric(jobs)
    results: list[BDResult] = []
    spreads: dict[tuple[str, str], SeedSpread] = {}
    too_few: dict[str, list[str]] = {}
    refused: list[str] = []
    variants = list(dict.fromkeys(job.variant for job in jobs))
    for anchor in (CONTROL, TEACHER):
        for variant in variants:
            if variant in (anchor, TEACHER) or anchor not in variants:
                continue
            reference, test = _sides(jobs, anchor, variant)
            if min(len(reference), len(test)) < MIN_POINTS:
                too_few.setdefault(anchor, []).append(variant)
                continue
            try:
                results.append(bd_rate(_curve(anchor, reference), _curve(variant, test), metric=metric))
            except BDRefusedError as error:
                refused.append(str(error))
                continue
            if spread := _spread(reference, test, anchor, metric):
                spreads[anchor, variant] = spread
    for anchor, names in too_few.items():
        refused.append(
            f"Of {', '.join(names)} against {anchor}: fewer than {MIN_POINTS} lambdas; compare RD costs instead."
        )
    return Gains(tuple(results), tuple(refused), spreads)


def _spread(reference: list[_Group], test: list[_Group], anchor: str, metric: Metric) -> SeedSpread | None:
    """Return the spread over the seeds that have all lambdas, each against the control of its seed, or the teacher."""
    seeds = set.intersection(*({job.seed for job in group} for group in test))
    rates: list[float] = []
    for seed in sorted(seeds):
        others = [[job for job in group if job.seed == seed or anchor == TEACHER] for group in reference]
        own = [[job for job in group if job.seed == seed] for group in test]
        try:
            result = bd_rate(RDCurve(anchor, _points(others)), RDCurve("seed", _points(own)), metric=metric)
        except BDRefusedError:  # a single seed may be worse than their mean
            return None
        rates.append(result.rate_percent)
    return SeedSpread(stdev(rates), len(rates)) if len(rates) > 1 else None


def _sides(jobs: Iterable[MeasuredJob], anchor: str, variant: str) -> tuple[list[_Group], list[_Group]]:
    """Return the runs of both at each lambda that both have; of equal seeds, unless the anchor is the teacher.

    Where one of them is a model of many rates, all points of both count, at whatever lambdas.
    """
    runs: dict[str, dict[float, dict[int, MeasuredJob]]] = {anchor: {}, variant: {}}
    for job in jobs:
        if job.variant in runs:
            runs[job.variant].setdefault(job.lmbda, {})[job.seed] = job
    whole = any(job.quality is not None for side in runs.values() for group in side.values() for job in group.values())
    sides: list[list[_Group]] = []
    for name, other in ((anchor, variant), (variant, anchor)):
        everywhere = {seed for group in runs[other].values() for seed in group}
        groups: list[_Group] = []
        for lmbda, group in runs[name].items():
            partners = everywhere if whole else set(runs[other].get(lmbda, {}))
            chosen = [
                job for seed, job in sorted(group.items()) if seed in partners or (anchor == TEACHER and partners)
            ]
            groups += [chosen] if chosen else []
        sides.append(groups)
    return sides[0], sides[1]


def _curve(name: str, groups: Sequence[_Group]) -> RDCurve:
    pictures = list(groups[0][0].images) if groups else []
    per_image = {
        picture: tuple(_point([job.images[picture] for job in group], group[0].lmbda) for group in groups)
        for picture in pictures
        if all(picture in job.images for group in groups for job in group)
    }
    seeds = ", ".join(f"{len(group)} at lambda {group[0].lmbda:g}" for group in groups)
    return RDCurve(name, _points(groups), per_image, f"runs: {seeds}")


def _points(groups: Sequence[_Group]) -> tuple[RDPoint, ...]:
    return tuple(_point([_figures(job) for job in group], group[0].lmbda) for group in groups)


def _figures(job: MeasuredJob) -> tuple[float | None, ...]:
    return tuple(job.averages.get(key) for key in ("rate_bpp", "psnr_db", "ms_ssim"))


def _point(figures: Sequence[Sequence[float | None]], lmbda: float) -> RDPoint:
    """Return the mean over seeds; a quality that one of them lacks is left out."""
    rate, psnr_db, ms_ssim = (
        None if None in column else fmean(column)  # type: ignore[arg-type]
        for column in [*zip(*figures, strict=True), (None,)][:3]
    )
    assert rate is not None
    return RDPoint(rate, psnr_db, ms_ssim, lmbda)
