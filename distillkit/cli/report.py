"""Commands that show what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A run folder, or a folder of runs such as a family's.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The file.  [default: report.html in that folder]", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that no report wrote.")] = False,
) -> None:
    """Write the page of a run or a family: figures, curves, pictures and recipe in one HTML file."""
    from rich.console import Console

    from ..report.page import write_page

    console = Console(stderr=True, markup=False, emoji=False)
    file = write_page(
        path, out, overwrite=overwrite, on_part=lambda part: console.print(f"report: {part}", highlight=False)
    )
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


@app.command()
def cite(
    what: Annotated[
        Path | None,
        typer.Argument(help="A recipe, a run folder or a folder of runs.  [default: everything that is registered]"),
    ] = None,
) -> None:
    """Print BibTeX for the methods that a run uses."""
    from ..hooks.loader import load_plugins
    from ..recipe.recipe import Recipe
    from ..report.citations import references
    from ..report.runs import read_runs

    recipes = []
    if what is not None:
        recipes = [Recipe.load(what)] if what.is_file() else [run.recipe for run in read_runs(what).runs]
    for reference in references(load_plugins(), recipes):
        print(f"% {', '.join(reference.used_by)}\n{reference.bibtex}\n")
