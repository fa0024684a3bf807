"""Commands that show what is there to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, app, show


def _shipped(typed: str) -> list[tuple[str, str]]:
    """Return the recipes whose names begin so, for the shell to complete."""
    from ..recipe.shipped import shipped_recipes

    return [(name, about) for name, about in shipped_recipes().items() if name.startswith(typed)]


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="The recipes to write.", show_default="list them", autocompletion=_shipped)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write them to.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """List the recipes that ship, or write a teacher's and a student's to start from."""
    from rich import box

    from ..evaluation.fitted import FittedTable
    from ..recipe.shipped import shipped_recipes, write_shipped

    if name is not None:
        for path in write_shipped(name, out):
            print(path)
        return
    table = FittedTable(box=box.SIMPLE_HEAD, pad_edge=False)
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
    from ..evaluation.describe import describe_pairs
    from ..evaluation.fitted import FittedTable
    from ..hooks.loader import load_plugins

    plugins = load_plugins()
    rows = describe_pairs(plugins, timed=time)
    others = sorted(set(plugins.components["pair"]) - {row["pair"] for row in rows})
    table = FittedTable("codec", title="Pairs: parameters by part, and kMAC/pixel (torch.utils.flop_counter, 256x256)")
    table.caption = f"Sizes that follow from their options: {', '.join(others)}" if others else None
    times = {"encode_seconds": "encode s", "decode_seconds": "decode s"} if time else {}
    parts = {"analysis": "g_a", "synthesis": "g_s", "entropy": "rest"}
    for heading in ("params", *parts.values(), "kMAC/px", *times.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        own = row["options"].get(row["part"], row["options"])  # those of teacher or student alone, where they differ
        words = [value if isinstance(value, str) else f"{key}={value}" for key, value in own.items()]
        counts = [row["num_parameters"], *(row["parameters_by_part"][part] for part in parts)]
        sizes = (f"{count / 1e6:.2f} M" for count in counts)
        seconds = (f"{row[name]:.2f}" for name in times)
        name = " ".join([row["pair"], *words, row["part"]])
        table.add_row(name, *sizes, f"{row['kmac_per_pixel']:.1f}", *seconds, end_section=row["part"] == "student")
    show(table, json.dumps(rows, indent=2), as_json)
