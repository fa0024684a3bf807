"""The figures at the top of a page: the student against its teacher and against the student without distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import final

import numpy as np

from ..family.plan import CONTROL
from ..family.record import MeasuredJob, measured_jobs
from ..family.run import Job, JobStatus
from .runs import Run, Runs

NUM_RESAMPLES = 2000


@final
@dataclass(frozen=True)
class Difference:
    """Rate-distortion cost against another variant's at one lambda, minus 1.

    Attributes:
        other: the other variant.
        lmbda: of both.
        value: mean cost over pictures and seeds against the other's, minus 1; below 0 is better.
        low: lower end of the 95 % interval over pictures (paired bootstrap); None for fewer than 4 pictures.
        high: upper end.
        num_seeds: of the student.
        num_images: pictures on which both were measured.
    """

    other: str
    lmbda: float
    value: float
    low: float | None
    high: float | None
    num_seeds: int
    num_images: int


def measured(runs: Sequence[Run]) -> list[MeasuredJob]:
    """Return the runs that were measured on held-out pictures, as a family's report takes them."""
    rows: list[MeasuredJob] = []
    for run in runs:
        if run.results and None not in (run.results["averages"]["rd_cost"], run.results["averages"]["psnr_db"]):
            job = Job(run.name, run.variant, run.recipe.lmbda, run.recipe.seed, run.recipe, ())
            rows += measured_jobs(JobStatus(job, "done", 0, run.results, run.sweep))
    return rows


def cost_difference(
    runs: Runs, other: str, variant: str | None = None, lmbda: float | None = None
) -> Difference | None:
    """Compare a variant with `teacher` or `control` on the pictures that both were measured on, at one lambda.

    Against the control, only seeds that both have count.

    Args:
        runs: where the results are.
        other: the variant to compare with.
        variant: by default the main run's.
        lmbda: by default the main run's, at its middle quality if it has many rates.
    """
    variant, lmbda = variant or runs.main.variant, lmbda or runs.main.lmbda
    if lmbda is None:
        return None
    ours, theirs = _costs(runs.runs, variant, lmbda), _costs(runs.runs, other, lmbda)
    if other == CONTROL:
        shared = ours.keys() & theirs.keys()
        ours, theirs = ({seed: each[seed] for seed in shared} for each in (ours, theirs))
    if not ours or not theirs or variant == other:
        return None
    images = sorted(set.intersection(*(set(costs) for costs in (*ours.values(), *theirs.values()))))
    if not images:
        return None
    a, b = (np.array([fmean(costs[i] for costs in each.values()) for i in images]) for each in (ours, theirs))
    low = high = None
    if len(images) >= 4:
        chosen = np.random.default_rng(0).integers(len(images), size=(NUM_RESAMPLES, len(images)))
        ratios = a[chosen].mean(axis=1) / b[chosen].mean(axis=1) - 1
        low, high = (float(value) for value in np.quantile(ratios, (0.025, 0.975)))
    return Difference(other, lmbda, float(a.mean() / b.mean() - 1), low, high, len(ours), len(images))


def time_cut(runs: Runs) -> float | None:
    """Return 1 - t_student / t_teacher, t the mean seconds to encode and decode a held-out picture, as measured."""
    seconds = [_seconds(run) for run in (runs.main, runs.teacher)]
    return None if seconds[0] is None or not seconds[1] else 1 - seconds[0] / seconds[1]


def _seconds(run: Run | None) -> float | None:
    if run is None or not run.results:
        return None
    averages = run.results["averages"]
    return averages["encode_seconds"] + averages["decode_seconds"]


def _costs(runs: Sequence[Run], variant: str, lmbda: float) -> dict[int, dict[str, float]]:
    """Return seed -> picture -> cost."""
    return {
        run.recipe.seed: {
            image["name"]: image["rd_cost"] for image in run.points[lmbda]["images"] if image["rd_cost"] is not None
        }
        for run in runs
        if run.variant == variant and lmbda in run.points
    }
