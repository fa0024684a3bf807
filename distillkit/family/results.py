"""A family's results as a page of markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..evaluation.bd import BDResult
from .gains import SeedSpread, gains
from .record import Record, common_metric
from .tables import headings, summarise


def results_markdown(record: Record) -> str:
    """Return tables of all that was measured: RD cost at each lambda, BD-rates, and what each variant is."""
    num_images = len(record.jobs[0].images) if record.jobs else 0
    measured = "; ".join(", ".join(f"{key} {value}" for key, value in each.items()) for each in record.environments)
    metric = common_metric(record.jobs)
    parts = [
        f"Means over {num_images} pictures, then over seeds; bpp from file bytes. Spread: standard deviation of the RD "
        "cost over seeds. Against control: RD cost over the seeds that both have."
        + f" Measured on: {measured}."
        * bool(measured),
        _table(headings(metric), (line.cells(metric) for line in summarise(record.jobs)), left=2),
    ]
    found = gains(record.jobs)
    if found.results:
        parts += [
            f"BD-rate on {metric.upper()} (PCHIP; Akima and cubic beside it); below zero: less rate than the anchor. "
            "Interval: 95 %, bootstrap over pictures, not over seeds. Spread: standard deviation of single seeds' "
            f"BD-rates, where more than one has all lambdas. Computed by {found.results[0].version}.",
            _table(
                (
                    "variant",
                    "anchor",
                    "BD-rate",
                    "interval",
                    "spread",
                    "Akima",
                    "cubic",
                    f"BD-{metric.upper()}",
                    "overlap",
                    "lambdas",
                ),
                (_bd_row(result, found.spreads.get((result.anchor, result.test))) for result in found.results),
                left=2,
            ),
        ]
    if found.notes:
        parts.append("No BD-rate:\n\n" + "\n".join(f"- {why}" for why in found.notes))
    parts.append(_recipes(record))
    return "\n\n".join(parts) + "\n"


def _bd_row(result: BDResult, spread: SeedSpread | None) -> tuple[str, ...]:
    return (
        result.test,
        result.anchor,
        f"{result.rate_percent:+.2f} %",
        "-" if result.interval is None else " to ".join(f"{bound:+.2f}" for bound in result.interval),
        "-" if spread is None else f"{spread.percent:.2f}",
        *(f"{result.others[each]:+.2f} %" for each in ("akima", "cubic")),
        "-" if result.psnr_db is None else f"{result.psnr_db:+.3f} dB",
        f"{result.overlap:.0%}",
        ", ".join(f"{lmbda:g}" for lmbda in result.test_lmbdas),
    )


def _recipes(record: Record) -> str:
    rows = []
    for name, about in record.variants.items():
        runs = [job for job in record.jobs if job.variant == name]
        steps = ", ".join(str(each) for each in dict.fromkeys(job.num_steps for job in runs))
        losses = "; ".join(_with_options(loss, options) for loss, options in about["losses"].items()) or "none"
        options = {key: value for key, value in about["schedule"].items() if key != "name"}
        rows.append((name, losses, _with_options(about["schedule"]["name"], options), about["initial_weights"], steps))
    return _table(("variant", "losses", "schedule", "begins with", "steps"), rows, left=5)


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} {json.dumps(options)}" if options else name


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """Return a table; the first `left` columns hold words, the others figures."""
    line = "|".join("---" if index < left else "---:" for index in range(len(headings)))
    return "\n".join([f"| {' | '.join(headings)} |", f"|{line}|", *(f"| {' | '.join(row)} |" for row in rows)])
