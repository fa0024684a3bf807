"""Plots as SVG that takes its colours from the page: axes, lines, marks and labels, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, final

from markupsafe import Markup, escape

Point = tuple[float, float]
_CHARACTER = 7.6  #: width of a label's character, in pixels


@final
class Scale:
    """From values to pixels, linear or logarithmic."""

    def __init__(self, low: float, high: float, start: float, stop: float, log: bool = False) -> None:
        """Map `low` to `start` and `high` to `stop`."""
        self.log = log
        self.low, self.high = low, high if high > low else low + (abs(low) or 1)
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log(max(v, 1e-12)) for v in (value, low, high))
        return self._start + (value - low) / (high - low) * (self._stop - self._start)

    def ticks(self, number: int) -> list[float]:
        """Return about `number` round values within the scale."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1, 2, 5), (1, 3), (1,)):
                values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
                values = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
                if 3 <= len(values) <= number + 2:
                    return values
            if len(values) > number:
                return values[:: math.ceil(len(values) / number)]
            # Less than about a decade: round values as on a linear scale.
        rough = (self.high - self.low) / max(1, number)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


@final
class Plot:
    """One plot under construction; its classes name the series, and the style sheet colours them.

    Attributes:
        x: scale of the horizontal axis; set it before drawing.
        y: scale of the vertical axis.
    """

    x: Scale
    y: Scale

    def __init__(self, width: int, height: int, left: int = 46, right: int = 12, top: int = 28, bottom: int = 40):
        """Begin a plot of this size and these margins, in pixels."""
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = left, width - right, top, height - bottom
        self._parts: list[str] = []

    def scales(self, x: Point, y: Point, log_x: bool = False, log_y: bool = False) -> None:
        """Set both scales from the ranges of values."""
        self.x = Scale(*x, self.left, self.right, log_x)
        self.y = Scale(*y, self.bottom, self.top, log_y)

    def axes(self, x_label: str, y_label: str, x_ticks: int = 6, y_ticks: int = 5) -> None:
        """Draw grid lines, tick labels, and what the axes show, with units."""
        for value in self.y.ticks(y_ticks):
            y = self.y(value)
            self._parts.append(f'<path class="grid" d="M{self.left} {y:.1f}H{self.right}"/>')
            self.text(self.left - 7, y + 3.5, number(value), "tick end")
        for value in self.x.ticks(x_ticks):
            x = self.x(value)
            self._parts.append(f'<path class="axis" d="M{x:.1f} {self.bottom}v4"/>')
            self.text(x, self.bottom + 17, number(value), "tick mid")
        self._parts.append(f'<path class="axis" d="M{self.left} {self.bottom}H{self.right}"/>')
        self.text((self.left + self.right) / 2, self.height - 5, x_label, "name mid")
        self.text(0, 11, y_label, "name")

    def line(self, points: Iterable[Point], series: str, style: str = "line") -> None:
        """Draw a polyline through points in values."""
        path = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        if path:
            self._parts.append(f'<path class="{style} s-{escape(series)}" d="M{path}"/>')

    def bar(self, x: Point, y: Point, series: str, tip: str = "", style: str = "bar") -> None:
        """Draw a rectangle between two pairs of pixels."""
        (x0, x1), (y0, y1) = sorted(x), sorted(y)
        self._parts.append(
            f'<rect class="{style} s-{escape(series)}" x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 0.3):.1f}" '
            f'height="{max(y1 - y0, 0.3):.1f}"{_tip(tip)}/>'
        )

    def mark(self, point: Point, series: str, tip: str = "", small: bool = False) -> None:
        """Draw a mark at a point in pixels; its shape, too, tells teacher, control and the rest apart."""
        x, y = point
        r = 2.2 if small else 4.6
        shapes = {
            "teacher": f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}"',
            "control": f'<path d="M{x:.1f} {y - 1.3 * r:.1f}l{1.3 * r:.1f} {1.3 * r:.1f}-{1.3 * r:.1f} {1.3 * r:.1f}-'
            f'{1.3 * r:.1f}-{1.3 * r:.1f}z"',
        }
        shape = shapes.get(series, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"')
        self._parts.append(f'{shape} class="mark{" small" * small} s-{escape(series)}"{_tip(tip)}/>')

    def beyond(self, point: Point, series: str, tip: str, towards: Literal["up", "down", "left"]) -> None:
        """Draw an arrowhead at a point of the plot's edge, in pixels: the value lies beyond it."""
        x, y = point
        d = {"up": f"M{x - 5:.1f} {y + 8:.1f}l5-8 5 8z", "down": f"M{x - 5:.1f} {y - 8:.1f}l5 8 5-8z"}.get(
            towards, f"M{x + 8:.1f} {y - 5:.1f}l-8 5 8 5z"
        )
        self._parts.append(f'<path class="mark beyond s-{escape(series)}" d="{d}"{_tip(tip)}/>')

    def text(self, x: float, y: float, text: str, style: str = "", series: str = "") -> None:
        """Write at a place in pixels."""
        name = f"{style} s-{series}" if series else style
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{escape(name)}">{escape(text)}</text>')

    def path(self, d: str, style: str, series: str = "") -> None:
        """Draw a path in pixels."""
        self._parts.append(f'<path class="{style}{f" s-{escape(series)}" if series else ""}" d="{d}"/>')

    def labels(self, labels: Sequence[tuple[float, float, str, str]], gap: float = 14) -> None:
        """Write (x, y, text, series) at the ends of lines, pushed apart where they would overlap."""
        ordered = sorted(labels, key=lambda label: label[1])
        heights: list[float] = []

        def near(first: int, second: int) -> bool:
            longer = max(len(ordered[first][2]), len(ordered[second][2]))
            return abs(ordered[first][0] - ordered[second][0]) < 7.5 * longer + 10

        for index, (_, y, _, _) in enumerate(ordered):  # downwards, each below those before
            heights.append(max([y, self.top + 4.0, *(heights[k] + gap for k in range(index) if near(index, k))]))
        for index in reversed(range(len(ordered))):  # and back up where they would leave the plot
            below = [heights[k] - gap for k in range(index + 1, len(ordered)) if near(index, k)]
            heights[index] = min([heights[index], self.bottom - 8.0, *below])
        for (x, _, text, series), y in zip(ordered, heights, strict=True):
            self.text(x, y + 4, shortened(text, self.width - x), "label", series)

    def done(self, title: str) -> Markup:
        """Return the plot; `title` describes it to those who cannot see it."""
        return Markup(
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(title)}">'
            + "".join(self._parts)
            + "</svg>"
        )


def both(draw: Callable[[int], Markup], wide: int = 700, narrow: int = 340) -> Markup:
    """Draw a plot for a desk and for a phone; the style sheet shows the one that fits, so that text keeps its size."""
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(draw(wide), draw(narrow))


def room_for(labels: Iterable[str], least: int, most: int) -> int:
    """Return how many pixels to leave for labels beside a plot: those of the longest, within two bounds."""
    return min(most, max([least, *(math.ceil(_CHARACTER * len(label)) + 12 for label in labels)]))


def shortened(label: str, pixels: float) -> str:
    """Return a label that fits into a width; of a longer one the beginning."""
    length = int(pixels / _CHARACTER)
    return label if len(label) <= length else f"{label[: max(1, length - 1)]}\N{HORIZONTAL ELLIPSIS}"


def number(value: float) -> str:
    """Return a tick's value without needless digits."""
    text = f"{value:.6f}".rstrip("0").rstrip(".") if 1e-6 <= abs(value) < 1 else f"{value:.6g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _tip(tip: str) -> str:
    return f' data-tip="{escape(tip)}"' if tip else ""
