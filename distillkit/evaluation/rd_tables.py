"""A comparison of curves as text: the points, the BD-rates, and below them all that those depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .bd import BDResult
from .rd_compare import RDComparison

if TYPE_CHECKING:
    from rich.table import Table


def points_table(comparison: RDComparison) -> Table:
    """Return every point of every curve, with its RD cost beside the anchor's at equal lambda."""
    from rich import box
    from rich.table import Table

    table = Table(title="Means over the pictures", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in (
        "lambda",
        "bpp",
        "PSNR\ndB",
        "MS-SSIM\ndB",
        "encode\ns",
        "decode\ns",
        "RD\ncost",
        "against\nanchor",
    ):
        table.add_column(heading, justify="right")
    for curve in comparison.curves:
        gains = comparison.at_equal_lmbda(curve)
        for index, (point, gain) in enumerate(zip(curve.points, gains, strict=True)):
            gain = None if curve.name == comparison.anchor else gain
            values = (
                (point.lmbda, "g"),
                (point.rate_bpp, ".3f"),
                (point.psnr_db, ".2f"),
                (point.ms_ssim_db, ".2f"),
                (point.encode_seconds, ".3g"),
                (point.decode_seconds, ".3g"),
                (point.rd_cost, ".3f"),
                (gain, "+.1%"),
            )
            cells = ["-" if value is None else format(value, form) for value, form in values]
            table.add_row("" if index else curve.name, *cells, end_section=index == len(curve.points) - 1)
    return table


def bd_table(results: Sequence[BDResult]) -> Table:
    """Return one row a BD-rate; `bd_notes` says what each stands on."""
    from rich import box
    from rich.table import Table

    anchor = results[0].anchor
    table = Table(title=f"BD-rate against {anchor}; below zero: less rate", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    headings = (
        "quality",
        f"{results[0].method.upper()}\n%",
        "95 %\ninterval",
        "Akima\n%",
        "cubic\n%",
        "BD\ndB",
        "overlap",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for result in results:
        interval = "-" if result.interval is None else " to ".join(f"{bound:+.2f}" for bound in result.interval)
        table.add_row(
            result.test,
            "PSNR" if result.metric == "psnr" else "MS-SSIM",
            f"{result.rate_percent:+.2f}",
            interval,
            *(f"{result.others[each]:+.2f}" if each in result.others else "-" for each in ("akima", "cubic")),
            "-" if result.psnr_db is None else f"{result.psnr_db:+.3f}",
            f"{result.overlap:.0%}",
        )
    return table


def bd_notes(comparison: RDComparison) -> list[str]:
    """Return what the figures depend on, a sentence a line: sources, lambdas, ranges, and why some are not there."""
    lines = []
    with_figures = {result.test for result in comparison.bd} | {comparison.anchor}
    for curve in comparison.curves if comparison.bd else ():
        if curve.name in with_figures:
            lmbdas = ", ".join(f"{lmbda:g}" for lmbda in curve.lmbdas) or "not given"
            role = "anchor" if curve.name == comparison.anchor else "curve"
            lines.append(
                f"{role} {curve.name}: {len(curve.points)} points, lambdas {lmbdas}; {curve.source or 'given'}."
            )
    for result in comparison.bd:
        low, high = result.quality_range_db
        metric = "PSNR" if result.metric == "psnr" else "MS-SSIM"
        pictures = f"; interval by bootstrap over {result.num_images} pictures" if result.num_images else ""
        lines.append(
            f"{result.test}, {metric}: {low:.2f} to {high:.2f} dB, which is {result.overlap:.0%} of the shorter curve"
            f"{pictures}; {result.version}."
        )
    return [*lines, *(f"No figure. {why}" for why in comparison.refused.values())]
