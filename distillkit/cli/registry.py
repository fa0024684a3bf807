"""Commands that list what is registered."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .app import AsJson, app, show


@app.command()
def plugins(as_json: AsJson = False) -> None:
    """List the installed plugins and everything that they register."""
    from rich.table import Table

    from ..plugins import load_plugins

    loaded = load_plugins()
    table = Table("component", "kind", "what it is", title="Registered components")
    rows = []
    for kind, components in loaded.components.items():
        for name, component in sorted(components.items()):
            summary = (component.__doc__ or "").strip().partition("\n")[0]
            rows.append({"name": name, "kind": kind, "summary": summary})
            table.add_row(name, kind, summary)
    origins = [{"name": p.name, "module": p.module, "distribution": p.distribution} for p in loaded.plugins]
    show(table, json.dumps({"plugins": origins, "components": rows}, indent=2), as_json)


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
    table = Table("codec", title="Pairs: parameters by part, and kMAC/pixel (torch.utils.flop_counter, 256x256)")
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
