"""The plots of what the codecs do inside: channels, taps, sizes and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from .svg import Plot, both, number, room_for, shortened

_LOWEST = -0.5  #: share of the variance: what is less is marked at the edge


def ranking(bits: Sequence[float], kept: Sequence[int] | None) -> Markup:
    """Draw the bits of the teacher's latent channels in falling order, those that were kept in colour."""
    order = sorted(range(len(bits)), key=lambda channel: -bits[channel])
    chosen = set(kept if kept is not None else order)

    def draw(width: int) -> Markup:
        plot = Plot(width, 250, left=52)
        plot.scales((0, len(order)), (0, max(bits) * 1.05 or 1))
        plot.axes(
            "channels of the teacher\N{RIGHT SINGLE QUOTATION MARK}s latent, by rank",
            "bits per pixel",
            7 if width > 500 else 4,
            4,
        )
        for place, channel in enumerate(order):
            tip = f"channel {channel}, rank {place + 1}: {bits[channel]:.4f} bits per pixel"
            x = (plot.x(place + 0.08), plot.x(place + 0.92))
            series = "student" if channel in chosen else "other"
            plot.bar(x, (plot.bottom, plot.y(bits[channel])), series, tip)
        return plot.done("Bits per pixel of the teacher's latent channels in falling order")

    return both(draw)


def alignment(taps: Sequence[str], sides: Sequence[tuple[str, str, Mapping[str, float]]]) -> Markup:
    """Draw how much of the teacher's variance is explained at each tap: a row per tap, a mark per run."""

    def draw(width: int) -> Markup:
        plot = Plot(width, 70 + 26 * len(taps), left=room_for(taps, 118, 150), right=26, top=26)
        low = min([0.0, *(shares[tap] for _, _, shares in sides for tap in taps)])
        plot.scales((100 * max(low, _LOWEST), 100), (0, 1))
        for value in plot.x.ticks(5):
            plot.path(f"M{plot.x(value):.1f} {plot.top}V{plot.bottom}", "grid")
            plot.text(plot.x(value), plot.bottom + 17, number(value), "tick mid")
        plot.text(
            (plot.left + plot.right) / 2,
            plot.height - 5,
            "variance explained, %",
            "name mid",
        )
        for index, tap in enumerate(taps):
            y = plot.top + 14 + 26 * index
            plot.text(plot.left - 12, y + 4, shortened(tap, plot.left - 12), "tick end")
            places = [plot.x(100 * max(shares[tap], _LOWEST)) for _, _, shares in sides]
            plot.path(f"M{min(places):.1f} {y}H{max(places):.1f}", "link")
            for (label, series, shares), x in zip(sides, places, strict=True):
                tip = f"{tap}, {label}: {100 * shares[tap]:.1f} %"
                if shares[tap] < _LOWEST:
                    plot.beyond((x, y), series, f"{tip}, left of this plot", "left")
                else:
                    plot.mark((x, y), series, tip)
        x = float(plot.left)
        for label, series, _ in sides:
            plot.mark((x + 5, 12), series)
            plot.text(x + 16, 16, label, "label", series)
            x += 34 + 7.2 * len(label)
        return plot.done("Share of the variance of the teacher's features that the student's explain, by tap")

    return both(draw)


def channels(sides: Sequence[tuple[str, str, Sequence[float]]]) -> Markup:
    """Draw the bits of every latent channel of each codec, each in its own falling order, on a log scale."""
    ordered = [(label, series, sorted(bits, reverse=True)) for label, series, bits in sides]
    highest = max(1e-6, *(bits[0] for _, _, bits in ordered))  # codecs that have learnt little may spend nothing
    lowest = max(highest / 1e3, 0.7 * min(bits[-1] for _, _, bits in ordered))

    def draw(width: int) -> Markup:
        labels = [label for label, _, _ in sides]
        plot = Plot(width, 260, left=58, right=room_for(labels, 74, 190 if width > 500 else 120))
        plot.scales((1, max(len(bits) for _, _, bits in ordered)), (lowest, highest * 1.4), log_y=True)
        plot.axes("channels of y, by rank", "bits per pixel", 6 if width > 500 else 4)
        ends = []
        for label, series, bits in ordered:
            points = [(rank, value) for rank, value in enumerate(bits, 1) if value >= lowest] or [(1, lowest)]
            plot.line(points, series)
            if (num_below := sum(value < lowest for value in bits)) > 0:
                tip = f"{label}: {num_below} channels spend less, below this plot"
                plot.beyond((plot.x(points[-1][0]), plot.bottom), series, tip, "down")
            ends.append((plot.x(points[-1][0]) + 7, plot.y(points[-1][1]), label, series))
        plot.labels(ends)
        return plot.done("Bits per pixel of every latent channel, in falling order")

    return both(draw)


def stacked(rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]], unit: str, digits: int) -> Markup:
    """Draw horizontal bars made of parts: a row for each of (label, series, parts)."""
    longest = max(sum(value for _, value in parts) for _, _, parts in rows) or 1.0

    names = list(dict.fromkeys(name for _, _, parts in rows for name, _ in parts if name))

    def draw(width: int) -> Markup:
        left = room_for([label for label, _, _ in rows], 82, 140)
        x, y = float(left), 0
        places = []  # of the legend, in as many lines as it takes
        for name in names:
            wide = 32 + 6.2 * len(name)
            if x > left and x + wide > width:
                x, y = float(left), y + 18
            places.append((name, x, y))
            x += wide
        head = y + 26 if names else 4
        plot = Plot(width, head + 30 * len(rows), left=left, right=96, top=0, bottom=0)
        plot.scales((0, longest), (0, 1))
        for name, x, y in places:
            plot.bar((x, x + 10), (y + 3, y + 13), "original", style=f"bar {name}")
            plot.text(x + 15, y + 12, name, "tick")
        for index, (label, series, parts) in enumerate(rows):
            y, start = head + 2 + 30 * index, 0.0
            plot.text(0, y + 14, shortened(label, left - 6), "label", series)
            for place, (name, value) in enumerate(parts):
                ends = (plot.x(start) + (1 if place else 0), plot.x(start + value))
                plot.bar(ends, (y, y + 19), series, f"{name} {value:.{digits}f} {unit}".strip(), f"bar {name}")
                start += value
            plot.text(plot.x(start) + 8, y + 14, f"{start:.{digits}f} {unit}", "label", series)
        return plot.done(f"Bars of {', '.join(names) or 'totals'}, in {unit}")

    return both(draw)
