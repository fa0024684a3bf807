"""A comparison of curves as text: the points, the BD-rates, and below them all that those depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .bd import MIN_POINTS, BDResult
from .curve import RDCurve
from .rd_compare import RDComparison

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("lambda", "bpp", "PSNR\ndB", "MS-SSIM\ndB", "encode\ns", "decode\ns", "RD\ncost", "against\nanchor")


def points_table(comparison: RDComparison) -> Table:
    """Return every point of every curve, with its RD cost beside the anchor's at equal lambda.

    Columns in which no point has a figure are left out.
    """
    from rich import box

    from .fitted import FittedTable

    table = FittedTable(title="Means over the pictures", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold")
    rows = [(curve, _cells(curve, comparison)) for curve in comparison.curves]
    shown = [place for place in range(len(_COLUMNS)) if any(cells[place] for _, points in rows for cells in points)]
    for place in shown:
        table.add_column(_COLUMNS[place], justify="right", no_wrap=True)
    for curve, points in rows:
        for index, cells in enumerate(points):
            values = [cells[place] or "-" for place in shown]
            table.add_row("" if index else curve.name, *values, end_section=index == len(points) - 1)
    return table


def _cells(curve: RDCurve, comparison: RDComparison) -> list[tuple[str, ...]]:
    """Return the cells of each point of a curve, in the order of the columns; empty where there is no figure."""
    rows = []
    for point, gain in zip(curve.points, comparison.at_equal_lmbda(curve), strict=True):
        values = (
            (point.lmbda, "g"),
            (point.rate_bpp, ".3f"),
            (point.psnr_db, ".2f"),
            (point.ms_ssim_db, ".2f"),
            (point.encode_seconds, ".3f" if (point.encode_seconds or 0) < 10 else ".0f"),
            (point.decode_seconds, ".3f" if (point.decode_seconds or 0) < 10 else ".0f"),
            (point.rd_cost, ".3f"),
            (None if curve.name == comparison.anchor else gain, "+.1%"),
        )
        rows.append(tuple("" if value is None else format(value, form) for value, form in values))
    return rows


def bd_table(results: Sequence[BDResult]) -> Table:
    """Return one row per BD-rate; `figure_notes` says what each depends on. Intervals are shown where one is known."""
    from rich import box

    from .fitted import FittedTable

    anchor = results[0].anchor
    table = FittedTable(title=f"BD-rate against {anchor}; below zero: less rate", box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("", overflow="fold")
    with_interval = any(result.interval for result in results)
    headings = (
        "quality",
        f"{results[0].method.upper()}\n%",
        *["95 %\ninterval"] * with_interval,
        "Akima\n%",
        "cubic\n%",
        "BD\ndB",
        "overlap",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        interval = "-" if result.interval is None else " to ".join(f"{bound:+.2f}" for bound in result.interval)
        table.add_row(
            result.test,
            "PSNR" if result.metric == "psnr" else "MS-SSIM",
            f"{result.rate_percent:+.2f}",
            *[interval] * with_interval,
            *(f"{result.others[each]:+.2f}" if each in result.others else "-" for each in ("akima", "cubic")),
            "-" if result.psnr_db is None else f"{result.psnr_db:+.3f}",
            f"{result.overlap:.0%}",
        )
    return table


def bd_notes(comparison: RDComparison) -> list[str]:
    """Return what the figures depend on, a sentence per line: sources, lambdas, ranges, why some are missing."""
    return [*figure_notes(comparison.bd), *_refusals(comparison)]


def figure_notes(results: Sequence[BDResult]) -> list[str]:
    """Return what each BD-rate depends on, one sentence per line: curves with lambdas, then ranges and version."""
    curves: list[str] = []
    for result in results:
        for index, (role, name, lmbdas, source) in enumerate(
            (
                ("anchor", result.anchor, result.anchor_lmbdas, result.anchor_source),
                ("curve", result.test, result.test_lmbdas, result.test_source),
            )
        ):
            known = ", ".join(f"{lmbda:g}" for lmbda in lmbdas) or "not given"
            curves.append(
                f"{role} {name}: {result.num_points[index]} points, lambdas {known}; {source or 'source not given'}."
            )
    lines = list(dict.fromkeys(curves))
    for result in results:
        low, high = result.quality_range_db
        metric = "PSNR" if result.metric == "psnr" else "MS-SSIM"
        pictures = f"; interval by bootstrap over {result.num_images} pictures" if result.num_images else ""
        lines.append(
            f"{result.test} against {result.anchor}, {metric}: {low:.2f} to {high:.2f} dB, which is "
            f"{result.overlap:.0%} of the shorter curve{pictures}; {result.version}."
        )
    return lines


def _refusals(comparison: RDComparison) -> list[str]:
    """Return why figures are not there; curves with too few points share a line."""
    short = [curve for curve in comparison.curves if len(curve.points) < MIN_POINTS]
    names = {curve.name for curve in short}
    others = (
        []
        if comparison.anchor in names
        else [why for (name, _), why in comparison.refused.items() if name not in names]
    )
    lines = [f"No figure. {why}" for why in dict.fromkeys(others)]
    if short and len(comparison.curves) > 1:
        got = ", ".join(f"{len(curve.points)} of {curve.name}" for curve in short)
        lines.append(
            f"No figure. BD-rates need at least {MIN_POINTS} points of a curve and of its anchor, {comparison.anchor}; "
            f"got {got}: train at more lambdas, and until then compare RD costs at equal lambda."
        )
    return lines
