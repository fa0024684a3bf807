"""What a family shows: the status of its jobs, and what each variant gains over the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, final

from rich import box
from rich.table import Table

from ..evaluation.curve import Metric
from ..evaluation.fitted import FittedTable
from ..evaluation.quality import decibel
from .plan import CONTROL
from .record import MeasuredJob, common_metric, measured_jobs
from .run import JobStatus

_QUALITIES: dict[Metric, str] = {"psnr": "PSNR dB", "ms-ssim": "MS-SSIM dB"}


def headings(metric: Metric) -> tuple[str, ...]:
    """Return the headings of `VariantResult.cells`; the first two columns hold words, the others figures."""
    return ("lambda", "variant", "seeds", "bpp", _QUALITIES[metric], "RD cost", "spread", "against control")


@final
@dataclass(frozen=True)
class VariantResult:
    """A variant at one lambda, over its seeds.

    Attributes:
        variant: `teacher`, or the student's variant.
        lmbda: of the runs.
        num_seeds: runs that were measured.
        rate_bpp: mean over pictures and seeds, from file bytes, in bits per pixel.
        psnr_db: mean over pictures and seeds, in dB.
        ms_ssim_db: mean MS-SSIM over pictures and seeds, in dB; None where a picture has none.
        rd_cost: mean over pictures and seeds.
        spread: standard deviation of the RD cost over seeds (n - 1), or None for one seed.
        against_control: RD cost against the control's over the seeds that both have, minus 1; None without control.
    """

    variant: str
    lmbda: float
    num_seeds: int
    rate_bpp: float
    psnr_db: float
    ms_ssim_db: float | None
    rd_cost: float
    spread: float | None
    against_control: float | None

    def quality_db(self, metric: Metric) -> float | None:
        """Return the quality in dB by this metric, or None where it was not measured."""
        return self.psnr_db if metric == "psnr" else self.ms_ssim_db

    def cells(self, metric: Metric) -> tuple[str, ...]:
        """Return the line as a table shows it, under `headings(metric)`."""
        quality = self.quality_db(metric)
        return (
            f"{self.lmbda:g}",
            self.variant,
            str(self.num_seeds),
            f"{self.rate_bpp:.3f}",
            "-" if quality is None else f"{quality:.2f}",
            f"{self.rd_cost:.3f}",
            "-" if self.spread is None else f"{self.spread:.3f}",
            "-" if self.against_control is None else f"{self.against_control:+.1%}",
        )


def summarise(jobs: Sequence[MeasuredJob | JobStatus]) -> list[VariantResult]:
    """Return a line for each variant and lambda of which something was measured, in the family's order."""
    measured: dict[tuple[float, str], dict[int, Mapping[str, Any]]] = {}
    for row in jobs:
        for job in measured_jobs(row) if isinstance(row, JobStatus) else [row]:
            measured.setdefault((job.lmbda, job.variant), {})[job.seed] = job.averages
    results = []
    for (lmbda, variant), seeds in measured.items():
        costs = [averages["rd_cost"] for averages in seeds.values()]
        control = measured.get((lmbda, CONTROL), {})
        both = [] if variant in ("teacher", CONTROL) else sorted(seeds.keys() & control.keys())
        against = None
        if both:
            own, other = (fmean(runs[seed]["rd_cost"] for seed in both) for runs in (seeds, control))
            against = own / other - 1
        means = {key: fmean(averages[key] for averages in seeds.values()) for key in ("rate_bpp", "psnr_db", "rd_cost")}
        similar = [averages.get("ms_ssim") for averages in seeds.values()]
        ms_ssim_db = None if None in similar else decibel(fmean(averages["ms_ssim"] for averages in seeds.values()))
        spread = stdev(costs) if len(costs) > 1 else None
        results.append(
            VariantResult(
                variant, lmbda, len(costs), **means, ms_ssim_db=ms_ssim_db, spread=spread, against_control=against
            )
        )
    return results


def results_table(jobs: Sequence[MeasuredJob]) -> Table:
    """Return mean and spread over seeds of every variant, beside the control."""
    table = FittedTable(title="RD cost on the family's pictures, from file bytes", box=box.SIMPLE_HEAD, pad_edge=False)
    metric = common_metric(jobs)
    for index, heading in enumerate(headings(metric)):
        table.add_column(heading, justify="left" if index < 2 else "right")
    for line in summarise(jobs):
        table.add_row(*line.cells(metric))
    return table


def status_table(rows: Sequence[JobStatus]) -> Table:
    """Return the status of each job."""
    done = sum(row.state == "done" for row in rows)
    table = FittedTable(title=f"{done} of {len(rows)} jobs done", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("job")
    table.add_column("state")
    table.add_column("steps", justify="right")
    table.add_column("RD cost", justify="right")
    for row in rows:
        cost = f"{row.results['averages']['rd_cost']:.3f}" if row.results else "-"
        state = row.state if row.state != "waiting" else f"waiting for {', '.join(row.job.needs)}"
        table.add_row(row.job.name, state, f"{row.step} of {row.job.recipe.num_steps}", cost)
    return table
