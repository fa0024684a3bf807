"""The plots of results and of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from ..evaluation.curve import Metric
from ..family.tables import VariantResult
from .headline import Difference
from .svg import Plot, Scale, both, room_for, shortened

_AXES: dict[Metric, str] = {"psnr": "PSNR, dB", "ms-ssim": "MS-SSIM, dB"}


def rate_distortion(
    lines: Sequence[VariantResult], names: Mapping[str, str], metric: Metric, cost_of: Metric | None
) -> Markup:
    """Draw quality over rate, a line per variant and a mark per lambda; with one lambda, also the teacher's cost.

    Args:
        lines: what was measured, all by this metric.
        names: variant -> series; the others are drawn in grey.
        metric: on the vertical axis.
        cost_of: the metric whose distortion is the one in the RD cost; None if it is another.
    """
    rates, qualities = [line.rate_bpp for line in lines], [_quality(line, metric) for line in lines]
    x, y = _around(rates, 0.14), _around(qualities, 0.14)
    variants = {line.variant for line in lines}
    few = len(variants - names.keys()) <= 4  # more labels would cover one another
    labelled = variants if few else variants & names.keys()

    def draw(width: int) -> Markup:
        right = room_for(labelled, 86, 190) if width > 500 else room_for(labelled, 64, 120)
        plot = Plot(width, 400 if width > 500 else 320, right=right)
        plot.scales((max(0.0, x[0]), x[1]), y)
        plot.axes("rate, bits per pixel", _AXES[metric], 7 if width > 500 else 4)
        teachers = [line for line in lines if line.variant == "teacher"]
        if len({line.lmbda for line in lines}) == 1 and teachers and metric == cost_of:
            _same_cost(plot, teachers[0], _quality(teachers[0], metric))
        labels = []
        for variant in sorted(variants, key=lambda v: v in names):
            own = sorted((line for line in lines if line.variant == variant), key=lambda line: line.rate_bpp)
            series = names.get(variant, "other")
            plot.line([(line.rate_bpp, _quality(line, metric)) for line in own], series)
            for line in own:
                at = f"\N{GREEK SMALL LETTER LAMDA} {line.lmbda:g}"
                tip = f"{variant}, {at}: {line.rate_bpp:.3f} bpp, {_quality(line, metric):.2f} dB"
                plot.mark((plot.x(line.rate_bpp), plot.y(_quality(line, metric))), series, tip)
            if own and variant in labelled:
                labels.append((plot.x(own[-1].rate_bpp) + 9, plot.y(_quality(own[-1], metric)), variant, series))
        plot.labels(labels)
        return plot.done(f"{metric.upper()} over rate of each variant")

    return both(draw)


def _quality(line: VariantResult, metric: Metric) -> float:
    quality = line.quality_db(metric)
    assert quality is not None
    return quality


def _same_cost(plot: Plot, teacher: VariantResult, quality_db: float) -> None:
    """Draw where the cost equals the teacher's: both metrics are -10 log10 of the distortion in it, up to a factor."""
    points = []
    for step in range(101):
        rate = plot.x.low + (plot.x.high - plot.x.low) * step / 100
        distortion = teacher.rd_cost - rate
        if distortion > 0:
            # Of means: the cost of the mean quality is not the mean cost; the curve is put through the teacher's mark.
            shift = quality_db + 10 * math.log10(max(teacher.rd_cost - teacher.rate_bpp, 1e-9))
            quality = shift - 10 * math.log10(distortion)
            if plot.y.low <= quality <= plot.y.high:
                points.append((rate, quality))
    plot.line(points, "teacher", "dotted")
    if points:
        x, y = plot.x(points[-1][0]), plot.y(points[-1][1])
        name = "the teacher\N{RIGHT SINGLE QUOTATION MARK}s RD cost"
        if x + 6 < plot.right - 110:
            plot.text(x + 6, y + (4 if y > plot.top + 8 else 8), name, "tick")
        else:  # above the end of the line, which rises to the right
            plot.text(plot.right, y - 8, name, "tick end")


def differences(rows: Sequence[tuple[str, Difference, list[float]]], names: Mapping[str, str], other: str) -> Markup:
    """Draw each variant's RD cost against another's: the mean, its interval, and every seed."""
    values = [value for _, difference, seeds in rows for value in
              (*seeds, difference.value, difference.low or 0, difference.high or 0)]  # fmt: skip
    x = _around([*values, 0.0], 0.08)

    def draw(width: int) -> Markup:
        left = room_for([name for name, _, _ in rows], *((120, 260) if width > 500 else (92, 150)))
        plot = Plot(width, 54 + 30 * len(rows), left=left, right=64, top=8)
        plot.scales((100 * x[0], 100 * x[1]), (0, 1))
        plot.y = Scale(0, 1, plot.top, plot.top)
        for value in plot.x.ticks(6 if width > 500 else 3):
            plot.path(f"M{plot.x(value):.1f} {plot.top}V{plot.bottom}", "grid")
            plot.text(plot.x(value), plot.bottom + 17, _signed(value), "tick mid")
        plot.path(f"M{plot.x(0):.1f} {plot.top}V{plot.bottom}", "axis")
        plot.text((plot.left + plot.right) / 2, plot.height - 5, f"RD cost against the {other}, %", "name mid")
        for index, (name, difference, seeds) in enumerate(rows):
            y = plot.top + 16 + 30 * index
            series = names.get(name, "other")
            plot.text(plot.left - 10, y + 4, shortened(name, plot.left - 10), "label end", series)
            if difference.low is not None and difference.high is not None:
                plot.path(
                    f"M{plot.x(100 * difference.low):.1f} {y}H{plot.x(100 * difference.high):.1f}", "interval", series
                )
            for value in seeds:
                plot.mark((plot.x(100 * value), y), series, f"one seed: {_percent(value)}", small=True)
            tip = f"{name}: {_percent(difference.value)}"
            plot.mark((plot.x(100 * difference.value), y), series, tip)
            plot.text(plot.right + 8, y + 4, _percent(difference.value), "label", series)
        return plot.done(f"Rate-distortion cost of each variant against the {other}")

    return both(draw)


def training(curves: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]]) -> Markup:
    """Draw the RD cost of a training batch over steps; the phases are those of the last curve.

    Args:
        curves: label, series and metrics of each run.
    """
    curves = [(label, series, metrics) for label, series, metrics in curves if metrics]
    values = sorted(line["rd_cost"] for _, _, metrics in curves for line in metrics if line["rd_cost"])
    steps = max(line["step"] for _, _, metrics in curves for line in metrics)
    low, high = values[0], values[min(len(values) - 1, int(0.97 * len(values)))]

    def draw(width: int) -> Markup:
        plot = Plot(width, 330, right=_right(width, curves))
        plot.scales((0, steps), (low * 0.92, max(high * 1.05, low * 1.5)), log_y=True)
        phases = _phases(plot, curves[-1][2])
        plot.axes("step", "RD cost of the training batches, bits per pixel", 6 if width > 500 else 3)
        for name, left, right in phases:
            if right - left > 6.2 * len(name):
                plot.text((left + right) / 2, plot.top + 14, name, "phase mid")
        labels = []
        for label, series, metrics in curves:
            points = [(line["step"], min(line["rd_cost"], plot.y.high)) for line in _whole_windows(metrics)]
            plot.line(points, series, "line fine")
            above = [line for line in _whole_windows(metrics) if line["rd_cost"] > plot.y.high]
            if above:
                top = max(above, key=lambda line: line["rd_cost"])
                tip = f"{label}: up to {top['rd_cost']:.3g} at step {top['step']}, above this plot"
                plot.beyond((plot.x(top["step"]), plot.top), series, tip, "up")
            labels.append((plot.x(points[-1][0]) + 7, plot.y(points[-1][1]), label, series))
        plot.labels(labels)
        return plot.done("Rate-distortion cost of the training batches over steps, by phase")

    return both(draw)


def validation(curves: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]]) -> Markup:
    """Draw the RD cost on held-out crops over steps, the lowest of each run marked.

    Args:
        curves: label, series and measurements of each run.
    """
    curves = [(label, series, lines) for label, series, lines in curves if lines]
    x = (0, max(line["step"] for _, _, lines in curves for line in lines))
    costs = [line["rd_cost"] for _, _, lines in curves for line in lines]

    def draw(width: int) -> Markup:
        plot = Plot(width, 280, right=_right(width, curves))
        plot.scales(x, (0.95 * min(costs), 1.05 * max(costs)), log_y=True)
        plot.axes("step", "RD cost on held-out crops, bits per pixel", 6 if width > 500 else 3)
        labels = []
        for label, series, lines in curves:
            plot.line([(line["step"], line["rd_cost"]) for line in lines], series, "line fine")
            best = min(lines, key=lambda line: line["rd_cost"])
            tip = f"{label}: lowest at step {best['step']}, {best['rd_cost']:.3f}"
            plot.mark((plot.x(best["step"]), plot.y(best["rd_cost"])), series, tip)
            labels.append((plot.x(lines[-1]["step"]) + 7, plot.y(lines[-1]["rd_cost"]), label, series))
        plot.labels(labels)
        return plot.done("Rate-distortion cost on held-out crops over steps")

    return both(draw)


def _right(width: int, curves: Sequence[tuple[str, str, Any]]) -> int:
    labels = [label for label, _, _ in curves]
    return room_for(labels, 82, 190) if width > 500 else room_for(labels, 62, 120)


def losses(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Draw each distillation loss, unweighted, over steps: one small plot per loss."""
    names = sorted({key for line in metrics for key in line if key.startswith("loss/")})
    plots = []
    for key in names:
        points = [(line["step"], line[key]) for line in _whole_windows(metrics) if line.get(key)]
        if len(points) < 2:  # on in few steps
            points = [(line["step"], line[key]) for line in metrics if line.get(key)]
        if not points:
            continue
        plot = Plot(340, 190)
        values = [value for _, value in points]
        plot.scales((0, metrics[-1]["step"]), (min(values) * 0.9, max(values) * 1.1), log_y=True)
        _phases(plot, metrics)
        plot.axes("step", key.removeprefix("loss/"), 3, 4)
        plot.line(points, "student", "line fine")
        if len(points) == 1:
            plot.mark((plot.x(points[0][0]), plot.y(values[0])), "student", f"step {points[0][0]}: {values[0]:.4g}")
        plots.append((key.removeprefix("loss/"), plot.done(f"{key.removeprefix('loss/')} over steps")))
    return plots


def _whole_windows(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out lines that are means over few steps, such as the last of a phase: they are mostly noise."""
    lengths = [line["step"] - before for line, before in zip(metrics, [0, *(m["step"] for m in metrics)], strict=False)]
    usual = sorted(lengths)[len(lengths) // 2]
    return [m for m, length in zip(metrics, lengths, strict=True) if 2 * length >= usual and m["rd_cost"]]


def _phases(plot: Plot, metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Shade every other phase; return name and ends of each in pixels, or nothing if there is only one."""
    start, phases = 0, []
    for name, lines in groupby(metrics, key=lambda line: str(line["phase"])):
        stop = list(lines)[-1]["step"]
        phases.append((name, plot.x(start), plot.x(stop)))
        start = stop
    if len(phases) < 2:
        return []
    for _, left, right in phases[::2]:
        plot.bar((left, right), (plot.top, plot.bottom), "band", style="band")
    return phases


def _around(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}") if abs(value) > 1e-9 else "0"


def _percent(share: float) -> str:
    text = f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")
    return f"{text} %" if float(f"{100 * share:.1f}") else "0.0 %"
