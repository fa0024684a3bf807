"""Commands that show what is there to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, app, show


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="The recipes to write.  [default: list them]")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write them to.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """List the recipes that ship, or write a teacher's and a student's to start from."""
    from rich import box
    from rich.table import Table

    from ..shipped import shipped_recipes, write_shipped

    if name is not None:
        for path in write_shipped(name, out):
            print(path)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipes", no_wrap=True)
    table.add_column("what they are")
    for each, about in shipped_recipes().items():
        table.add_row(each, about)
    show(table, json.dumps(shipped_recipes(), indent=2), as_json)


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
