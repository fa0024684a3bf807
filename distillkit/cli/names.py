"""Files and keys on the command line: a suffix that is missing is added, a wrong one is explained; where runs go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DataError

_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")  #: `.013` at the end of `student-0.013` is none

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, as in `optimizer.learning_rate=1e-3`; may be given several times. "
        "The run folder's recipe has it.",
        show_default="the recipe's values",
    ),
]


def named(path: Path, suffix: str, command: str) -> Path:
    """Return the file to write, with its suffix.

    Args:
        path: as given.
        suffix: of what is written, e.g. `.json`.
        command: that writes it, and the option that names it, for the message.

    Raises:
        DataError: the path ends in another suffix.
    """
    if path.name.lower().endswith(suffix):
        return path
    if _SUFFIX.search(path.name):
        raise DataError(
            f"{command} {path}: expected a name that ends in {suffix}, got {path.name}; that is what is written. "
            "Rename it, or leave the suffix out."
        )
    return path.with_name(path.name + suffix)


def existing(path: Path, suffix: str) -> Path:
    """Return the file to read: `path`, or with its suffix where only that one exists."""
    longer = path.with_name(path.name + suffix) if path.name else path
    return longer if not path.exists() and longer.is_file() else path


def run_folder(recipe: Path, out: Path | None) -> Path:
    """Return where the run of a recipe or family goes: `out`, or `runs/NAME`; from its folder, as its paths do."""
    return recipe.absolute().parent / (out or Path("runs") / recipe.stem)
