"""The command that compares codecs as rate-distortion curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, Quiet, app, notes, show
from .devices import Device


@app.command()
def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, model files, folders or results.json of evaluations, folders of these, or curves (JSON "
            "in CompressAI's format). Models whose names differ only in the lambda are one curve."
        ),
    ],
    anchor: Annotated[
        str | None,
        typer.Option(help="The curve to compare with: its name, or one of the sources.", show_default="the first"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures to measure models and codecs on.", show_default="none; only evaluations and curves"
        ),
    ] = None,
    classical: Annotated[
        list[str] | None,
        typer.Option(
            help="Classical codecs to measure on the same pictures: 'jpeg,webp,avif,jpeg-xl,vvc'.", show_default="none"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for compressed files, results and curves.")] = Path(
        "runs/comparison"
    ),
    device: Device = "cpu",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare codecs at several qualities: RD curves, and BD-rates with all that they depend on."""
    from ..data.listing import list_images
    from ..evaluation import rd_compare, rd_tables

    names = [name for each in classical or [] for name in each.split(",") if name]
    images = list_images(data) if data else []
    given = list(sources)
    by_path = anchor is not None and (Path(anchor) in given or "/" in anchor or anchor.endswith(".json"))
    if anchor and by_path and Path(anchor).resolve() not in [source.resolve() for source in given]:
        given.insert(0, Path(anchor))
    curves = rd_compare.gather_curves(
        given, out, images=images, classical=names, on_codec=notes(quiet, "measuring"), device=device
    )
    if anchor and by_path:
        anchor = rd_compare.curve_of(anchor, curves)
    comparison = rd_compare.compare_curves(curves, anchor)
    show(rd_tables.points_table(comparison), comparison.to_json(), as_json)
    if not as_json:
        if comparison.bd:
            show(rd_tables.bd_table(comparison.bd), "", False)
        for note in rd_tables.bd_notes(comparison):
            print(note)
