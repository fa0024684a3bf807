"""Commands that list what is registered."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .app import AsJson, app, show


@app.command()
def pairs(
    time: Annotated[
        bool, typer.Option("--time", help="Also code a picture of 768x512 pixels with random weights; takes minutes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the registered pairs, each with its options, parameters and complexity."""
    from rich.table import Table

    from ..evaluation.describe import describe_pairs
    from ..plugins import load_plugins

    rows = describe_pairs(load_plugins(), timed=time)
    table = Table("pair", "options", "part", title="Pairs (kMAC/pixel by torch.utils.flop_counter, at 256x256)")
    times = ("encode_seconds", "decode_seconds") if time else ()
    parts = ("analysis", "synthesis", "entropy")
    for heading in ("params", *parts, "kMAC/pixel", *(name.replace("_seconds", " s") for name in times)):
        table.add_column(heading, justify="right")
    for row in rows:
        options = ", ".join(f"{key} = {value}" for key, value in row["options"].items())
        counts = [row["num_parameters"], *(row["parameters_by_part"][part] for part in parts)]
        sizes = (f"{count / 1e6:.2f} M" for count in counts)
        seconds = (f"{row[name]:.2f}" for name in times)
        table.add_row(row["pair"], options, row["part"], *sizes, f"{row['kmac_per_pixel']:.1f}", *seconds)
    show(table, json.dumps(rows, indent=2), as_json)
