"""What each variant of a family gains in rate over the control, and lacks against the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import final

from ..evaluation.bd import MIN_POINTS, BDRefusedError, BDResult, bd_rate
from ..evaluation.curve import RDCurve, RDPoint
from .plan import CONTROL
from .record import MeasuredJob

TEACHER = "teacher"


@final
@dataclass(frozen=True)
class Spread:
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
        notes: why other figures are not there, a sentence each.
        spreads: (anchor, variant) -> how far single seeds' BD-rates lie apart, where more than one has all lambdas.
    """

    results: tuple[BDResult, ...]
    notes: tuple[str, ...]
    spreads: Mapping[tuple[str, str], Spread]


def gains(jobs: Sequence[MeasuredJob]) -> Gains:
    """Return the BD-rates of a family's variants; rate and PSNR are means over seeds at each lambda.

    The intervals are over pictures: how the figure would change with other pictures of the kind, not with other seeds.
    """
    results: list[BDResult] = []
    spreads: dict[tuple[str, str], Spread] = {}
    too_few: dict[str, list[str]] = {}
    refused: list[str] = []
    variants = list(dict.fromkeys(job.variant for job in jobs))
    for anchor in (CONTROL, TEACHER):
        for variant in variants:
            if variant in (anchor, TEACHER) or anchor not in variants:
                continue
            pairs = list(_pairs(jobs, anchor, variant))
            if len(pairs) < MIN_POINTS:
                too_few.setdefault(anchor, []).append(variant)
                continue
            reference, test = (_curve(name, [pair[i] for pair in pairs]) for i, name in enumerate((anchor, variant)))
            try:
                results.append(bd_rate(reference, test))
            except BDRefusedError as error:
                refused.append(str(error))
                continue
            if spread := _spread(pairs, anchor):
                spreads[anchor, variant] = spread
    for anchor, names in too_few.items():
        refused.append(
            f"Of {', '.join(names)} against {anchor}: fewer than {MIN_POINTS} lambdas; compare RD costs instead."
        )
    return Gains(tuple(results), tuple(refused), spreads)


def _spread(pairs: Sequence[tuple[list[MeasuredJob], list[MeasuredJob]]], anchor: str) -> Spread | None:
    """Return the spread over the seeds that have all lambdas, each against the control of its seed, or the teacher."""
    seeds = set.intersection(*({job.seed for job in own} for _, own in pairs))
    rates: list[float] = []
    for seed in sorted(seeds):
        reference = [[job for job in jobs if job.seed == seed or anchor == TEACHER] for jobs, _ in pairs]
        test = [[job for job in own if job.seed == seed] for _, own in pairs]
        try:
            result = bd_rate(RDCurve(anchor, _points(reference)), RDCurve("seed", _points(test)))
        except BDRefusedError:  # a single seed may be worse than their mean
            return None
        rates.append(result.rate_percent)
    return Spread(stdev(rates), len(rates)) if len(rates) > 1 else None


def _pairs(
    jobs: Iterable[MeasuredJob], anchor: str, variant: str
) -> Iterable[tuple[list[MeasuredJob], list[MeasuredJob]]]:
    """Yield the runs of both at each lambda that both have; of equal seeds, unless the anchor is the teacher."""
    runs: dict[tuple[float, str], dict[int, MeasuredJob]] = {}
    for job in jobs:
        runs.setdefault((job.lmbda, job.variant), {})[job.seed] = job
    for lmbda in dict.fromkeys(lmbda for lmbda, _ in runs):
        own, other = runs.get((lmbda, variant), {}), runs.get((lmbda, anchor), {})
        both = sorted(own.keys() & other.keys())
        if anchor == TEACHER and own and other:
            yield list(other.values()), list(own.values())
        elif both:
            yield [other[seed] for seed in both], [own[seed] for seed in both]


def _curve(name: str, groups: Sequence[Sequence[MeasuredJob]]) -> RDCurve:
    pictures = list(groups[0][0].images) if groups else []
    per_image = {
        picture: tuple(_point([job.images[picture] for job in group], group[0].lmbda) for group in groups)
        for picture in pictures
        if all(picture in job.images for group in groups for job in group)
    }
    seeds = ", ".join(f"{len(group)} at lambda {group[0].lmbda:g}" for group in groups)
    return RDCurve(name, _points(groups), per_image, f"runs: {seeds}")


def _points(groups: Sequence[Sequence[MeasuredJob]]) -> tuple[RDPoint, ...]:
    return tuple(_point([_figures(job) for job in group], group[0].lmbda) for group in groups)


def _figures(job: MeasuredJob) -> tuple[float, float]:
    rate, psnr = job.averages["rate_bpp"], job.averages["psnr_db"]
    assert rate is not None
    assert psnr is not None
    return rate, psnr


def _point(figures: Sequence[tuple[float, float]], lmbda: float) -> RDPoint:
    return RDPoint(fmean(rate for rate, _ in figures), fmean(psnr for _, psnr in figures), lmbda=lmbda)
