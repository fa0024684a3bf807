"""A measurement as a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from .result import STUDENT, Bench
from .timing import PARTS, Direction, Latency

_COLOURS = {
    "analysis": "#4477aa",
    "synthesis": "#4477aa",
    "entropy networks": "#66ccee",
    "coder": "#ccbb44",
    "file": "#bbbbbb",
    "all": "#777777",
}


def save_plot(bench: Bench, path: Path) -> bool:
    """Draw times by part and rates at equal PSNR to `path`; return whether matplotlib is there to do it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    latencies = {name: model.latency for name, model in bench.models.items()}
    latencies |= {codec.title: codec.latency for codec in bench.classical.values() if codec.latency is not None}
    figure = Figure(figsize=(11, 1.8 + 0.45 * len(latencies)), layout="constrained")
    axes: Any = figure.subplots(1, 3 if bench.classical else 2)
    for axis, direction in zip(axes, ("encode", "decode"), strict=False):
        _draw_times(axis, direction, {name: latency[direction] for name, latency in latencies.items()})
    if bench.classical:
        _draw_rates(axes[2], bench)
    figure.suptitle(str(bench.machine), fontsize=8)
    figure.savefig(path, dpi=150)
    return True


def _draw_times(axis: Any, direction: Direction, latencies: dict[str, Latency]) -> None:
    named: set[str] = set()
    for row, latency in enumerate(latencies.values()):
        left = 0.0
        parts = {part: latency.parts[part] for part in PARTS if part in latency.parts}
        for part, spread in (parts or {"all": latency.total}).items():
            label = None if part in named else part
            named.add(part)
            axis.barh(row, 1000 * spread.median, left=left, color=_COLOURS.get(part), label=label)
            left += 1000 * spread.median
        total = latency.total
        errors = [[1000 * (total.median - total.lower_quartile)], [1000 * (total.upper_quartile - total.median)]]
        axis.errorbar(1000 * total.median, row, xerr=errors, color="black", capsize=3)
    axis.set(title=f"{direction}: median and quartiles", xlabel="ms", yticks=range(len(latencies)))
    axis.set_yticklabels(latencies)
    axis.invert_yaxis()
    axis.legend(fontsize=7)


def _draw_rates(axis: Any, bench: Bench) -> None:
    found = {name: codec for name, codec in bench.classical.items() if codec.images}
    for row, (name, codec) in enumerate(found.items()):
        theirs = fmean(image.rate_bpp for image in codec.images)
        axis.barh(row - 0.2, theirs, 0.4, color="#777777", label=None if row else "classical codec")
        axis.barh(row + 0.2, bench.student_rate_bpp(name), 0.4, color="#4477aa", label=None if row else STUDENT)
    axis.set(title="rate at the student's PSNR", xlabel="bpp", yticks=range(len(found)))
    axis.set_yticklabels([f"{codec.title}, {len(codec.images)} pictures" for codec in found.values()])
    axis.invert_yaxis()
    if found:
        axis.set_xlim(right=1.5 * axis.get_xlim()[1])  # the legend covers no bar
        axis.legend(fontsize=7)
