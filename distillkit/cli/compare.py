"""The command that compares codecs as rate-distortion curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, app, show


@app.command()
def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, model files, folders or results.json of evaluations, folders of these, or curves (JSON "
            "in CompressAI's format). Models whose names differ in the lambda alone are one curve."
        ),
    ],
    anchor: Annotated[
        str | None,
        typer.Option(help="The curve to compare with: its name, or a file.  [default: the first]", show_default=False),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of pictures to measure models and codecs on.")] = None,
    classical: Annotated[
        list[str] | None,
        typer.Option(help="Classical codecs to measure on the same pictures: 'jpeg,webp,avif,jpeg-xl,vvc'."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for compressed files, results and curves.")] = Path(
        "runs/comparison"
    ),
    as_json: AsJson = False,
) -> None:
    """Compare codecs at several qualities: RD curves, and BD-rates with all that they depend on."""
    from ..evaluation import rd_compare, rd_tables
    from ..evaluation.curve import read_curve
    from ..images import list_images

    names = [name for each in classical or [] for name in each.split(",") if name]
    images = list_images(data) if data else []
    given = list(sources)
    if anchor and anchor.endswith(".json"):
        given = [Path(anchor), *(source for source in given if source.resolve() != Path(anchor).resolve())]
        anchor = read_curve(anchor).name
    curves = rd_compare.gather_curves(given, out, images=images, classical=names)
    comparison = rd_compare.compare_curves(curves, anchor)
    show(rd_tables.points_table(comparison), comparison.to_json(), as_json)
    if not as_json:
        if comparison.bd:
            show(rd_tables.bd_table(comparison.bd), "", False)
        for note in rd_tables.bd_notes(comparison):
            print(note)
