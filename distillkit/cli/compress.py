"""The commands that put a trained codec to use."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import printable
from .app import AsJson, app, show

if TYPE_CHECKING:
    from ..codec.files import Settings


class Precision(StrEnum):
    """Of analysis and synthesis."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


Model = Annotated[Path, typer.Option(help="A run folder, or a model.safetensors.")]
Target = Annotated[
    Path | None, typer.Argument(help="File or folder to write.  [default: beside each source]", show_default=False)
]
Precise = Annotated[Precision, typer.Option(help="Of the transforms; auto: bf16 on devices that compute in it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist; never a source.")]


@app.command()
def compress(
    source: Annotated[Path, typer.Argument(help="A picture, or a folder of pictures.")],
    target: Target = None,
    *,
    model: Model,
    convert: Annotated[
        bool,
        typer.Option("--convert", help="Take pictures that are not 8-bit RGB: 16 bits, transparency, grey, CMYK."),
    ] = False,
    precision: Precise = Precision.auto,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compress pictures with a trained model, several at once."""
    from ..codec.files import Settings

    _run(Settings("compress", model, precision.value, convert), source, target, overwrite, as_json)


@app.command()
def decompress(
    source: Annotated[Path, typer.Argument(help="A compressed file (.dk), or a folder of them.")],
    target: Target = None,
    *,
    model: Model,
    precision: Precise = Precision.auto,
    max_pixels: Annotated[
        int | None,
        typer.Option(help="Refuse files of larger images.  [default: 67108864]", min=1, show_default=False),
    ] = None,
    trusted: Annotated[
        bool,
        typer.Option("--trusted", help="Take files that you made, of a codec whose decoder a forged file can crash."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Decompress files to PNG with the model that wrote them, or with a light decoder of it."""
    from ..codec.files import MAX_PIXELS, Settings

    settings = Settings("decompress", model, precision.value, max_pixels=max_pixels or MAX_PIXELS, trusted=trusted)
    _run(settings, source, target, overwrite, as_json)


def _run(settings: Settings, source: Path, target: Path | None, overwrite: bool, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress
    from rich.table import Table

    from ..codec.files import plan_files
    from ..codec.folder import code_files

    def note(text: str) -> None:
        print(f"distillkit: note: {text}", file=sys.stderr)

    pairs = plan_files(settings.direction, source, target, overwrite)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=len(pairs) == 1) as progress:
        task = progress.add_task(settings.direction, total=len(pairs))
        coded = code_files(settings, pairs, lambda _: progress.advance(task), note)
    table = Table("file", "pixels", "bytes", "bpp", title=f"{settings.direction}ed")
    rows = []
    for file in coded:
        if file.error is None:
            bpp = 8 * file.compressed_bytes / (file.width * file.height)
            table.add_row(
                printable(str(file.target)).replace("\n", r"\n"),
                f"{file.width}x{file.height}",
                str(file.compressed_bytes),
                f"{bpp:.4f}",
            )
        names = {"source": str(file.source), "target": str(file.target), "error": file.error}
        sizes = {"width": file.width, "height": file.height, "compressed_bytes": file.compressed_bytes}
        rows.append(names | (sizes if file.error is None else {}))
    failed = [file.error for file in coded if file.error is not None]
    if len(failed) < len(coded) or as_json:
        show(table, json.dumps(rows, indent=2), as_json)
    for error in failed:
        print(f"distillkit: error: {printable(error)}", file=sys.stderr)
    if failed:
        raise typer.Exit(2)
