"""A measurement as text."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .result import STUDENT, TEACHER, Bench, BenchedModel
from .timing import Spread


def as_text(bench: Bench) -> Group:
    """Return the tables and the words that belong to them."""
    tables = [_models(bench)]
    if bench.classical:
        tables.append(_classical(bench))
    return Group(*tables, *(Text(line, overflow="fold") for line in notes(bench)))


def notes(bench: Bench) -> Iterator[str]:
    """Yield what has to be known to read the figures."""
    yield f"Measured on: {bench.machine}."
    if not bench.machine.is_quiet:
        yield (
            f"NOT QUIET: the load average was {bench.machine.load_average:.1f} at the start; other programs ran, and "
            "the times are not to be trusted."
        )
    images = bench.models[STUDENT].images
    sizes = sorted({f"{image.width}x{image.height}" for image in images})
    yield (
        f"{len(images)} picture{'s' * (len(images) != 1)} of {', '.join(sizes[:4])}{' and more' * (len(sizes) > 4)}; "
        f"{bench.repeats} timed run{'s' * (bench.repeats != 1)} of each codec on each, by turns, after an untimed one. "
        "Times: median (quartiles) over all, pixels to bytes in memory and back. Cut: 1 - student / teacher."
    )
    if any(model.memory for model in bench.models.values()):
        yield "Memory: peak resident set of a fresh process that codes the largest picture, Python and torch included."
    for codec in bench.classical.values():
        yield f"{codec.title}: {codec.version}; {codec.settings}."
    for reason in bench.missing.values():
        yield f"Left out: {reason}"


def _models(bench: Bench) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    columns = [list(_rows(model)) for model in bench.models.values()]
    for name in bench.models:
        table.add_column(name, justify="right")
    cuts = bench.cuts()
    if TEACHER in bench.models:
        table.add_column("cut", justify="right")
    labels = list(dict.fromkeys(label for rows in columns for label, _, _ in rows))
    for label in labels:
        cells = [next((text for other, _, text in rows if other == label), "-") for rows in columns]
        key = next(key for rows in columns for other, key, _ in rows if other == label)
        cut = [f"{cuts[key]:.0%}" if key in cuts else ""] if TEACHER in bench.models else []
        table.add_row(label, *cells, *cut)
    return table


def _rows(model: BenchedModel) -> Iterator[tuple[str, str, str]]:
    """Yield label, name of the measure among the cuts, and text of each figure."""
    for direction, latency in model.latency.items():
        yield f"{direction}, s", f"{direction} seconds", _seconds(latency.total)
        for part, spread in latency.parts.items():
            yield f"  {direction}: {part}", f"{direction} {part} seconds", _seconds(spread)
    for direction, memory in (model.memory or {}).items():
        label, key = f"{direction} memory, MB (before)", f"{direction} peak memory bytes"
        yield label, key, f"{memory.peak_bytes / 1e6:.0f} ({memory.loaded_bytes / 1e6:.0f})"
    yield "precision", "", model.precision
    yield "parameters", "parameters", f"{model.num_parameters / 1e6:.3f} M"
    for part, count in model.parameters_by_part.items():
        yield f"  {part}", f"{part} parameters", f"{count / 1e6:.3f} M"
    yield "kMAC/pixel", "kmac per pixel", f"{model.kmac_per_pixel:.1f}"
    yield "bpp", "", f"{fmean(image.rate_bpp for image in model.images):.4f}"
    yield "PSNR, dB", "", f"{fmean(image.psnr_db for image in model.images):.2f}"


def _classical(bench: Bench) -> Table:
    table = Table(title="Classical codecs at the student's PSNR on each picture", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in ("pictures", "bpp", "student's bpp", "student saves", "encode, s", "decode, s"):
        table.add_column(heading, justify="right")
    total = len(bench.models[STUDENT].images)
    for name, codec in bench.classical.items():
        count = f"{len(codec.images)} of {total}"
        if codec.latency is None:
            table.add_row(codec.title, count, *"-----")
            continue
        rate_bpp, student = fmean(image.rate_bpp for image in codec.images), bench.student_rate_bpp(name)
        times = [_seconds(codec.latency[direction].total) for direction in ("encode", "decode")]
        table.add_row(codec.title, count, f"{rate_bpp:.4f}", f"{student:.4f}", f"{1 - student / rate_bpp:.0%}", *times)
    return table


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.4f} ({spread.lower_quartile:.4f}-{spread.upper_quartile:.4f})"
