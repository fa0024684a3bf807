"""The commands that put a trained codec to use."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, printable
from .app import AsJson, Quiet, app, messages, show
from .devices import Device

if TYPE_CHECKING:
    from ..codec.files import Settings
    from ..codec.rate_control import Wanted


class Precision(StrEnum):
    """Of analysis and synthesis."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


Model = Annotated[Path, typer.Option(help="A run folder, or a model.safetensors.")]
Precise = Annotated[Precision, typer.Option(help="For the transforms; auto: bf16 on devices that are faster in it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist; never a source.")]


@app.command()
def compress(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, or folders of them. Of several arguments the last is the target: a folder, or for one "
            "picture a file (.dk). Without a target each file goes beside its source."
        ),
    ],
    *,
    model: Model,
    convert: Annotated[
        bool,
        typer.Option(
            "--convert",
            help="Convert other kinds of picture to 8-bit RGB, or to grey for a model of grey.",
        ),
    ] = False,
    quality: Annotated[
        float | None,
        typer.Option(help="From 0 to 1, for a model of many rates.", show_default="0.5; models of one rate have none"),
    ] = None,
    bpp: Annotated[
        float | None,
        typer.Option(
            help="Search for the quality at which each file has this rate in bits per pixel.", show_default="off"
        ),
    ] = None,
    psnr: Annotated[
        float | None,
        typer.Option(help="Search for the quality at which each picture has this PSNR in dB.", show_default="off"),
    ] = None,
    precision: Precise = Precision.auto,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compress pictures with a trained model, several at once."""
    from ..codec.files import Settings

    wanted = _wanted(quality=quality, bpp=bpp, psnr=psnr)
    settings = Settings("compress", model, precision.value, convert, wanted=wanted, device=device)
    _run(settings, sources, overwrite, as_json, quiet)


def _wanted(**options: float | None) -> Wanted | None:
    from ..codec.rate_control import Wanted

    given = {name: value for name, value in options.items() if value is not None}
    if len(given) > 1:
        raise DataError(f"compress: expected one of {', '.join(f'--{name}' for name in given)}, got all; choose one.")
    for name, value in given.items():
        return Wanted(name, value)  # type: ignore[arg-type]
    return None


@app.command()
def decompress(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Compressed files (.dk), or folders of them. Of several arguments the last is the target: a folder, "
            "or for one file a picture (.png). Without a target each picture goes beside its source."
        ),
    ],
    *,
    model: Model,
    precision: Precise = Precision.auto,
    device: Device = "cpu",
    max_pixels: Annotated[
        int,
        typer.Option(help="Refuse files of larger images.", min=1),
    ] = 1 << 26,
    trusted: Annotated[
        bool,
        typer.Option("--trusted", help="Also use a decoder that a forged file can crash: for files that you made."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Decompress files with the model that wrote them, or a light decoder of it: to PNG, or TIFF where PNG cannot."""
    from ..codec.files import Settings

    settings = Settings("decompress", model, precision.value, device=device, max_pixels=max_pixels, trusted=trusted)
    _run(settings, sources, overwrite, as_json, quiet)


def _run(settings: Settings, names: list[str], overwrite: bool, as_json: bool, quiet: bool) -> None:
    from rich.progress import MofNCompleteColumn, Progress

    from ..codec.folder import code_files
    from ..evaluation.fitted import FittedTable
    from .sources import plan_files, split_target

    console = messages(quiet)

    def note(text: str) -> None:
        console.print(f"distillkit: note: {text}", highlight=False, soft_wrap=True)

    pairs = plan_files(settings.direction, *split_target(settings.direction, names), overwrite)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=len(pairs) == 1) as progress:
        task = progress.add_task(settings.direction, total=len(pairs))
        coded = code_files(settings, pairs, lambda _: progress.advance(task), note)
    wanted = settings.wanted
    has_psnr = wanted is not None and wanted.measure == "psnr"
    extra = [*(["quality"] if wanted else []), *(["PSNR dB"] if has_psnr else [])]
    table = FittedTable("file", title=f"{settings.direction}ed")
    for heading in ("pixels", "bytes", "bpp", *extra):
        table.add_column(heading, justify="right")
    rows = []
    for file in coded:
        row = {"source": str(file.source), "target": str(file.target), "error": file.error}
        if file.error is None:
            bpp = 8 * file.compressed_bytes / (file.width * file.height)
            cells = [f"{file.width}x{file.height}", str(file.compressed_bytes), f"{bpp:.4f}"]
            cells += [] if file.quality is None else [f"{file.quality:.4f}"]
            name = printable(str(file.target)).replace("\n", r"\n")
            table.add_row(name, *cells, *([f"{file.reached:.3f}"] if has_psnr else []))
            row |= {"width": file.width, "height": file.height, "compressed_bytes": file.compressed_bytes}
            row |= {} if file.quality is None else {"quality": file.quality, "reached": file.reached}
            if wanted is not None and file.reached is not None and not wanted.is_met_by(file.reached):
                note(f"{name}: {wanted}: reached {file.reached:.4g} at quality {file.quality:g}, the closest.")
        rows.append(row)
    failed = [file.error for file in coded if file.error is not None]
    if len(failed) < len(coded) or as_json:
        show(table, json.dumps(rows, indent=2), as_json)
    for error in failed:
        print(f"distillkit: error: {printable(error)}", file=sys.stderr)
    if failed:
        raise typer.Exit(2)
