"""Commands that show what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import Quiet, app, notes
from .devices import Device
from .names import existing, named


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A run folder, or a folder of runs such as a family's.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The file.", show_default="report.html in that folder"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that no report wrote.")] = False,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Write the page of a run or a family: figures, curves, pictures and recipe in one HTML file."""
    from ..report.page import write_page

    out = out and named(out, ".html", "report -o")
    file = write_page(path, out, overwrite=overwrite, on_part=notes(quiet, "report:"), device=device)
    print(f"{file}: {file.stat().st_size / 1e6:.2g} MB")


@app.command()
def cite(
    what: Annotated[
        Path | None,
        typer.Argument(
            help="A recipe, a run folder or a folder of runs.", show_default="everything that is registered"
        ),
    ] = None,
) -> None:
    """Print BibTeX for the methods that a run uses."""
    from ..errors import DataError
    from ..hooks.loader import load_plugins
    from ..recipe.recipe import Recipe
    from ..report.citations import references
    from ..report.runs import read_runs

    recipes = []
    if what is not None:
        what = existing(what, ".toml")
        if not what.exists():
            raise DataError(
                f"cite {what}: expected a recipe, a run folder or a folder of runs, got nothing there; check the path."
            )
        recipes = [Recipe.load(what)] if what.is_file() else [run.recipe for run in read_runs(what, "cite").runs]
    for reference in references(load_plugins(), recipes):
        print(f"% {', '.join(reference.used_by)}\n{reference.bibtex}\n")
