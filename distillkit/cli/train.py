"""Commands that train one run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import Quiet, app, goes_on_later, messages
from .names import Changes, existing, run_folder
from .trackers import Mlflow, Tensorboard, Wandb, trackers


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML).")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder. A relative path starts from the recipe's folder, like the paths in a recipe.",
            show_default="runs/NAME, from the recipe's file name",
        ),
    ] = None,
    changes: Changes = None,
    tensorboard: Tensorboard = False,
    mlflow: Mlflow = False,
    wandb: Wandb = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a recipe, or the steps that remain."""
    from ..recipe.changes import parse_changes
    from ..recipe.paths import check_paths
    from ..recipe.recipe import Recipe

    recipe = existing(recipe, ".toml")
    loaded = Recipe.load(recipe, parse_changes(changes or []))
    check_paths(loaded, recipe)
    _train(loaded, run_folder(recipe, out), quiet, tensorboard=tensorboard, mlflow=mlflow, wandb=wandb)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    tensorboard: Tensorboard = False,
    mlflow: Mlflow = False,
    wandb: Wandb = False,
    quiet: Quiet = False,
) -> None:
    """Continue a run that was stopped, from its newest whole checkpoint."""
    from ..errors import TrainingError
    from ..recipe.recipe import Recipe
    from ..training.folder.run_folder import RunFolder

    file = RunFolder(run).recipe_file
    if not file.is_file():
        raise TrainingError(f"run folder {run}: expected a run's folder, but it has no {file.name}; check the path.")
    _train(Recipe.load(file), run, quiet, tensorboard=tensorboard, mlflow=mlflow, wandb=wandb)


def _train(recipe: Any, folder: Path, quiet: bool, **chosen: bool) -> None:
    from ..training.display.progress import ProgressDisplay
    from ..training.distributed import OtherRankError, is_first_rank, leave
    from ..training.train import train as run

    display = ProgressDisplay(messages(quiet))
    try:
        with goes_on_later():
            model = run(recipe, folder, observers=[display, *trackers(**chosen)])
        if is_first_rank():
            print(f"{'Trained model' if display.has_run else 'Already done'}: {model}")
    except OtherRankError:
        raise typer.Exit(2) from None  # the other one says why
    finally:
        others = leave()
    if others:
        sys.stdout.flush()
        os._exit(0)
