"""Trained models side by side, on the same pictures: one table, one JSON file, one picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ..data.images import check_images
from ..data.listing import mark_output
from ..data.samples import RGB
from ..errors import DataError
from ..hooks.loader import Plugins, load_plugins
from ..model.adapters import CodecAdapter
from ..model.complexity import kmac_per_pixel, num_parameters
from ..model.conditioned import FIXED_POINTS, ConditionedAdapter
from ..model.file import load_model
from ..training.objectives.distances import PerceptualDistance
from ..training.objectives.objective import Objective
from .contact_sheet import save_contact_sheet
from .decode import DecodingProcess
from .evaluate import evaluate_model
from .results import PERCEPTUAL, Evaluation

if TYPE_CHECKING:
    from rich.table import Table


@final
@dataclass(frozen=True)
class ComparedModel:
    """One row of a comparison.

    Attributes:
        name: as given to `compare`.
        model: its file.
        num_parameters: of the whole codec.
        kmac_per_pixel: thousands of multiply-accumulates per pixel, see `kmac_per_pixel`.
        evaluation: what was measured on real files.
    """

    name: str
    model: Path
    num_parameters: int
    kmac_per_pixel: float
    evaluation: Evaluation


@final
@dataclass(frozen=True)
class Comparison:
    """Models measured on the same pictures in one process, one after the other.

    Attributes:
        models: in the order given.
        folder: where the files are: `<model>/<picture>.dk` and `.png` (or `.tif`), `comparison.json`, `comparison.png`.
    """

    models: tuple[ComparedModel, ...]
    folder: Path

    def table(self) -> Table:
        """Return the comparison as a table: means over the pictures."""
        from rich import box

        from .fitted import FittedTable

        num_images = len(self.models[0].evaluation.images)
        title = f"Means over {num_images} held-out picture{'s' * (num_images != 1)}; bpp from file bytes"
        table = FittedTable(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("", overflow="fold")
        perceptual = [
            key for key in PERCEPTUAL if any(model.evaluation.averages[key] is not None for model in self.models)
        ]
        headings = (
            "params",
            "kMAC/pixel",
            "bpp",
            "est. bpp",
            "PSNR dB",
            "MS-SSIM",
            "encode s",
            "decode s",
            "RD cost",
            *(key.upper() for key in perceptual),
        )
        for heading in headings:  # in two lines where that saves width: a terminal may have 80 columns
            table.add_column(heading.replace(" ", "\n").replace("/", "/\n"), justify="right")
        for model in self.models:
            means = model.evaluation.averages
            table.add_row(
                model.name,
                f"{model.num_parameters / 1e6:.2f} M",
                f"{model.kmac_per_pixel:.1f}",
                *(
                    "-" if (value := means[key]) is None else f"{value:.{digits}f}"
                    for key, digits in (
                        ("rate_bpp", 3),
                        ("estimated_bpp", 3),
                        ("psnr_db", 2),
                        ("ms_ssim", 4),
                        ("encode_seconds", 3),
                        ("decode_seconds", 3),
                        ("rd_cost", 3),
                        *((key, 4) for key in perceptual),
                    )
                ),
            )
        gaps = [(model.name, gap) for model in self.models if (gap := model.evaluation.estimate_gap) is not None]
        if gaps:
            table.caption = "bpp over est. bpp: " + ", ".join(f"{name} {gap:+.1%}" for name, gap in gaps)
            table.caption_justify = "left"
        return table

    def to_json(self) -> str:
        """Return the comparison as JSON: a list of models, each with its means and its pictures."""
        rows = [
            {
                "name": model.name,
                "model": model.model.as_posix(),
                "num_parameters": model.num_parameters,
                "kmac_per_pixel": model.kmac_per_pixel,
                **json.loads(model.evaluation.to_json()),
            }
            for model in self.models
        ]
        return json.dumps(rows, indent=2) + "\n"


def rows_of(
    name: str, codec: CodecAdapter, qualities: Sequence[float] = FIXED_POINTS
) -> list[tuple[str, float | None]]:
    """Return name and quality of each measurement of a model: one, or several of a model of many rates."""
    if not isinstance(codec, ConditionedAdapter):
        return [(name, None)]
    return [(f"{name}-q{quality:g}", quality) for quality in qualities]


def compare(
    models: Mapping[str, Path],
    images: Sequence[Path],
    folder: Path,
    *,
    plugins: Plugins | None = None,
    on_model: Callable[[str], None] | None = None,
    perceptual: Sequence[PerceptualDistance] = (),
    qualities: Sequence[float] = FIXED_POINTS,
    objective: Objective | None = None,
    device: str = "cpu",
) -> Comparison:
    """Compress `images` with each model to real files in `folder`, decode those in a fresh process, and measure.

    A model of many rates is measured at several qualities, a row each: `<name>-q0.25` is that at quality 0.25.

    Args:
        models: name -> model file or run folder.
        images: pictures of the models' samples, mostly 8-bit RGB.
        folder: where files and results go.
        plugins: where the models' pairs are registered; by default the installed plugins.
        on_model: called with each model's name before it is measured.
        perceptual: distances to measure as well.
        qualities: of models of many rates, in [0, 1].
        objective: see `evaluate_model`.
        device: where they run, see `load_model`.

    Raises:
        DistillkitError: a model or picture cannot be used.
    """
    plugins = plugins or load_plugins()
    # What is wrong with the last one is known before the first is measured.
    kinds = {load_model(path, plugins).codec.samples for path in models.values()}
    if len(kinds) > 1:
        both = " and ".join(sorted(map(str, kinds)))
        raise DataError(f"evaluation: expected models of the same pictures, got some of {both}; measure each alone.")
    samples = next(iter(kinds), RGB)
    check_images(images, pixels=True, samples=samples)
    try:
        mark_output(folder)
    except OSError as error:
        raise DataError(f"evaluation {folder}: cannot be made: {error.strerror}; choose another folder.") from None
    rows = []
    with DecodingProcess() as process:
        for name, path in models.items():
            if on_model is not None:
                on_model(name)
            model = load_model(path, plugins)
            codec: CodecAdapter = model.codec
            about = Path(path), num_parameters(codec.module), kmac_per_pixel(codec)
            options: dict[str, Any] = {"plugins": plugins, "process": process, "device": device}
            options["objective"] = objective
            for row, quality in rows_of(name, codec, qualities):
                evaluation = evaluate_model(
                    path, images, folder / row, quality=quality, perceptual=perceptual, **options
                )
                rows.append(ComparedModel(row, *about, evaluation))
    comparison = Comparison(tuple(rows), folder)
    (folder / "comparison.json").write_text(comparison.to_json(), encoding="utf-8", errors="backslashreplace")
    pictures = {row.name: row.evaluation.images for row in rows}
    save_contact_sheet(images, pictures, folder, folder / "comparison.png", samples)
    return comparison
