"""Commands that train."""

from __future__ import annotations

import os
import sys
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, app, goes_on_later, show


class DemoSize(StrEnum):
    """Scale of the demo."""

    tiny = "tiny"
    lite = "lite"
    paper = "paper"


Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Also write the metrics for TensorBoard.")]


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own images; every tenth is held out. [default: photographs "
            "inside scikit-image and scikit-learn]",
            show_default=False,
        ),
    ] = None,
    size: Annotated[DemoSize, typer.Option(help="tiny: minutes, lite: hours, paper: days on a GPU.")] = DemoSize.tiny,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs.  [default: runs/demo-SIZE]", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a trained student at work; then train a teacher, distil it, and compare with a student trained without."""
    from ..demo import SHOWN, gather_images, recipes
    from ..evaluation.first_look import first_look
    from ..experiment import distil
    from ..report.page import write_page

    out = out or Path("runs") / f"demo-{size.value}"
    train_folder, held_out = gather_images(out / "images", data)
    teacher, student = recipes(size.value, train_folder)
    if not as_json:
        print(f"A student that ships ({SHOWN}) at work on the held-out pictures:")
        look = first_look(SHOWN, held_out, out / "first-look")
        show(look.table(), "", False)
        print(f"The pictures side by side: {look.picture}\nNow a teacher, a control and a student are trained:")
    with goes_on_later():
        comparison = distil(teacher, student, out, held_out)
    show(comparison.table(), comparison.to_json(), as_json)
    page = write_page(out)
    if not as_json:
        print(f"Side by side: {comparison.folder / 'comparison.png'}\nThe whole job as a page: {page}")
        if sys.stdout.isatty():  # opens nothing where there is no screen
            webbrowser.open(page.resolve().as_uri())


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML).")],
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder.  [default: runs/NAME, from the recipe's file name]", show_default=False),
    ] = None,
    tensorboard: Tensorboard = False,
) -> None:
    """Carry out a recipe, or what is left of it."""
    from ..recipe.recipe import Recipe

    loaded = Recipe.load(recipe)
    _train(loaded, out or Path("runs") / recipe.stem, tensorboard)


@app.command()
def resume(run: Annotated[Path, typer.Argument(help="A run folder.")], tensorboard: Tensorboard = False) -> None:
    """Go on with a run that was stopped, from its newest whole checkpoint."""
    from ..errors import TrainingError
    from ..recipe.recipe import Recipe
    from ..training.folder.run_folder import RunFolder

    file = RunFolder(run).recipe_file
    if not file.is_file():
        raise TrainingError(f"run folder {run}: expected a run's folder, but it has no {file.name}; check the path.")
    _train(Recipe.load(file), run, tensorboard)


def _train(recipe: Any, folder: Path, tensorboard: bool) -> None:
    from ..training.distributed import OtherRankError, is_first_rank, leave
    from ..training.observers import ProgressDisplay
    from ..training.train import train as run

    observers: list[object] = [ProgressDisplay()]
    if tensorboard:
        from ..training.trackers.tensorboard import TensorBoardWriter

        observers.append(TensorBoardWriter())
    try:
        with goes_on_later():
            model = run(recipe, folder, observers=observers)
        if is_first_rank():
            print(f"Trained model: {model}")
    except OtherRankError:
        raise typer.Exit(2) from None  # the other one says why
    finally:
        others = leave()
    if others:
        sys.stdout.flush()
        os._exit(0)
