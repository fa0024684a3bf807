"""The figures of a page as tables: of each picture, as CSV, and the main table as LaTeX."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..evaluation.curve import Metric
from ..family.tables import VariantResult, headings
from .runs import Run, Runs

_NAMES: dict[Metric, tuple[str, str]] = {"psnr": ("PSNR, dB", "psnr_db"), "ms-ssim": ("MS-SSIM, dB", "ms_ssim_db")}
_COLUMNS = (
    *("picture", "width", "height", "file_bytes", "rate_bpp", "psnr_db", "ms_ssim", "ms_ssim_db", "rd_cost"),
    *("encode_seconds", "decode_seconds", "lpips", "dists"),
)
_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


@final
@dataclass(frozen=True)
class PictureTable:
    """What was measured on each picture.

    Attributes:
        sides: series and label of each codec.
        headings: of the columns that each codec has.
        rows: name of the picture, and its figures, codec after codec.
        download: all measured runs, in full, as CSV in a data URI.
    """

    sides: tuple[tuple[str, str], ...]
    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    download: str


def picture_table(runs: Runs) -> PictureTable | None:
    """Return the figures of teacher, control and main run on each picture of the main run, or None without any."""
    main = ("teacher" if runs.main.variant == "teacher" else "student", runs.main.variant, runs.main)
    shown = [("teacher", "teacher", runs.teacher), ("control", "control", runs.control), main]
    measured = [(series, label, _images(run)) for series, label, run in shown if run and run.results]
    if not runs.main.results:
        return None
    order: tuple[Metric, ...] = ("psnr", "ms-ssim") if runs.metric == "psnr" else ("ms-ssim", "psnr")
    values = [image for _, _, images in measured for image in images.values()]
    columns = [("bpp", "rate_bpp", 3), *((*_NAMES[metric], 2) for metric in order), ("RD cost", "rd_cost", 3)]
    columns = [each for each in columns if any(image.get(each[1]) is not None for image in values)]
    rows = [
        (
            name,
            tuple(
                _cell(images.get(name, {}).get(key), digits) for _, _, images in measured for _, key, digits in columns
            ),
        )
        for name in measured[-1][2]
    ]
    sides = tuple((series, label) for series, label, _ in measured)
    return PictureTable(
        sides, tuple(heading for heading, _, _ in columns), tuple(rows), data_uri(_csv(runs), "text/csv")
    )


def latex(lines: Sequence[VariantResult], metric: Metric) -> str:
    """Return the main table for a paper; it needs the package booktabs."""
    other: Metric = "psnr" if metric == "ms-ssim" else "ms-ssim"
    with_other = all(line.quality_db(other) is not None for line in lines)
    names = list(headings(metric))
    if with_other:
        names.insert(5, headings(other)[4])
    body = []
    for line in lines:
        cells = list(line.cells(metric))
        if with_other:
            cells.insert(5, line.cells(other)[4])
        body.append(" & ".join(map(_latex_cell, cells)) + r" \\")
    names = [r"$\lambda$" if name == "lambda" else name for name in names]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{rl{'r' * (len(names) - 2)}}}",
            r"\toprule",
            " & ".join(names) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_cell(cell: str) -> str:
    if cell == "-":
        return "--"
    minus = "$-$" if re.match(r"-\d", cell) else ""
    return minus + cell[bool(minus) :].translate(_LATEX)


def data_uri(text: str, kind: str) -> str:
    """Return a text as an address that a link can offer for download, without a network."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode(errors='backslashreplace')).decode()}"


def _csv(runs: Runs) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "variant", "lambda", "seed", "quality", *_COLUMNS))
    for run in runs.runs:
        for lmbda, results in run.points.items():
            about = (run.name, run.variant, lmbda, run.recipe.seed, results.get("quality", ""))
            for image in results["images"]:
                writer.writerow((*about, image["name"], *(_plain(image.get(column)) for column in _COLUMNS[1:])))
    return text.getvalue()


def _images(run: Run) -> dict[str, dict[str, float | None]]:
    return {image["name"]: image for image in run.results["images"]} if run.results else {}


def _cell(value: float | None, digits: int) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"


def _plain(value: object) -> object:
    return "" if value is None else value
