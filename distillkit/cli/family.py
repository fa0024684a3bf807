"""The command that carries out a family of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, app, goes_on_later, show


@app.command()
def family(
    file: Annotated[Path, typer.Argument(help="A family (TOML): teacher, student, variants, lambdas, seeds.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs.  [default: runs/NAME, from the file's name]", show_default=False),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only these jobs; a name or a pattern such as 'control-*'. May be given several times."),
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Stop cleanly after so many hours.", min=0)] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say how far each job is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train and measure a teacher and variants of its student at several lambdas and seeds, or what is left of that."""
    from ..family import plan, report, run

    loaded, folder = plan.Family.load(file), out or Path("runs") / file.stem
    if status:
        rows = run.status(loaded, folder)
    else:
        with goes_on_later():
            rows = run.run_family(loaded, folder, only=only or [], budget_hours=budget)
    show(report.status_table(rows), run.status_json(rows), as_json)
    if not as_json and any(row.results for row in rows):
        show(report.results_table(rows), "", as_json)
