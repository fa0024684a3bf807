"""A measurement as text."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..fitted import FittedTable
from .result import STUDENT, TEACHER, Bench, BenchedModel
from .timing import PARTS, Quartiles


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
            "the times cannot be trusted."
        )
    images = bench.models[STUDENT].images
    sizes = sorted({f"{image.width}x{image.height}" for image in images})
    yield (
        f"{len(images)} picture{'s' * (len(images) != 1)} of {', '.join(sizes[:4])}{' and more' * (len(sizes) > 4)}; "
        f"{bench.repeats} timed run{'s' * (bench.repeats != 1)} of each codec on each, in turns, after an untimed one. "
        "Times: median (quartiles) over all, pixels to bytes in memory and back. Cut: 1 - student / teacher."
    )
    if any(model.memory for model in bench.models.values()):
        yield "Memory: peak resident set of a fresh process that codes the largest picture, Python and torch included."
    if bench.lost_db is not None:
        yield (
            f"Equal files: the student decodes what the teacher wrote, {bench.lost_db:.2f} dB of PSNR below the "
            "teacher's own pictures (mean)."
        )
    for codec in bench.classical.values():
        yield f"{codec.title}: {codec.version}; {codec.settings}."
    for reason in bench.missing.values():
        yield f"Left out: {reason}"


def _models(bench: Bench) -> Table:
    table = FittedTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in bench.models:
        table.add_column(name, justify="right")
    if TEACHER in bench.models:
        table.add_column("cut", justify="right")
    cuts = bench.cuts()
    columns = [_cells(model) for model in bench.models.values()]
    for key, label in _labels(bench).items():
        cut = [f"{cuts[key]:.0%}" if key in cuts else ""] if TEACHER in bench.models else []
        table.add_row(label, *(cells.get(key, "-") for cells in columns), *cut)
    return table


def _labels(bench: Bench) -> dict[str, str]:
    """Return for each figure, by its name among the cuts, what the table calls it."""
    labels: dict[str, str] = {}
    student = bench.models[STUDENT]
    for direction in student.latency:
        labels[f"{direction} seconds"] = f"{direction}, ms"
        found = {part for model in bench.models.values() for part in model.latency[direction].parts}
        labels |= {f"{direction} {part} seconds": f"  {part}" for part in PARTS if part in found}
    for direction in student.memory or ():
        labels[f"{direction} peak memory bytes"] = f"{direction} memory, MB (before)"
    labels["parameters"] = "parameters"
    labels |= {f"{part} parameters": f"  {part}" for part in student.parameters_by_part}
    return labels | {"kmac per pixel": "kMAC/pixel", "precision": "precision", "bpp": "bpp", "psnr": "PSNR, dB"}


def _cells(model: BenchedModel) -> dict[str, str]:
    """Return the text of each figure by its name."""
    cells: dict[str, str] = {}
    for direction, latency in model.latency.items():
        cells[f"{direction} seconds"] = _milliseconds(latency.total)
        cells |= {f"{direction} {part} seconds": _milliseconds(spread) for part, spread in latency.parts.items()}
    for direction, memory in (model.memory or {}).items():
        text = f"{memory.peak_bytes / 1e6:.0f} ({memory.loaded_bytes / 1e6:.0f})"
        cells[f"{direction} peak memory bytes"] = text
    cells["parameters"] = f"{model.num_parameters / 1e6:.3f} M"
    cells |= {f"{part} parameters": f"{count / 1e6:.3f} M" for part, count in model.parameters_by_part.items()}
    cells["kmac per pixel"] = f"{model.kmac_per_pixel:.1f}"
    cells["precision"] = model.precision
    cells["bpp"] = f"{fmean(image.rate_bpp for image in model.images):.4f}"
    cells["psnr"] = f"{fmean(image.psnr_db for image in model.images):.2f}"
    return cells


def _classical(bench: Bench) -> Table:
    table = FittedTable(
        title="Classical codecs at the student's PSNR on each picture", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("")
    for heading in ("pictures", "bpp", "student's bpp", "student saves", "encode, ms", "decode, ms"):
        table.add_column(heading, justify="right")
    total = len(bench.models[STUDENT].images)
    for name, codec in bench.classical.items():
        count = f"{len(codec.images)} of {total}"
        if codec.latency is None:
            table.add_row(codec.title, count, *"-----")
            continue
        rate_bpp, student = fmean(image.rate_bpp for image in codec.images), bench.student_rate_bpp(name)
        times = [_milliseconds(codec.latency[direction].total) for direction in ("encode", "decode")]
        table.add_row(codec.title, count, f"{rate_bpp:.4f}", f"{student:.4f}", f"{1 - student / rate_bpp:.0%}", *times)
    return table


def _milliseconds(spread: Quartiles) -> str:
    median, lower, upper = (1000 * s for s in (spread.median, spread.lower_quartile, spread.upper_quartile))
    digits = 1 if median < 1000 else 0
    return f"{median:.{digits}f} ({lower:.{digits}f}-{upper:.{digits}f})"
