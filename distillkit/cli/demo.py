"""Commands that do a whole job: `demo` and `distil`."""

from __future__ import annotations

import sys
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, Quiet, app, goes_on_later, messages, notes, show
from .names import Changes
from .trackers import Mlflow, Tensorboard, Wandb, trackers


class Size(StrEnum):
    """Scale of a job."""

    tiny = "tiny"
    lite = "lite"
    paper = "paper"


Scale = Annotated[Size, typer.Option(help="tiny: minutes, lite: hours, paper: days on a GPU.")]


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own images; every tenth is held out.",
            show_default="photographs inside scikit-image and scikit-learn",
        ),
    ] = None,
    size: Scale = Size.tiny,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs.", show_default="runs/demo-SIZE")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show a trained student at work; then train a teacher, distil it, and compare with a student trained without.

    At size `tiny` control and student are trained from three seeds, and the spread is printed.
    """
    from ..demo import SHOWN, gather_images, recipes
    from ..evaluation.first_look import first_look
    from ..experiment import distil_recipes, repeat_with_seeds
    from ..report.page import write_page
    from ..training.display.progress import ProgressDisplay

    out = out or Path("runs") / f"demo-{size.value}"
    train_folder, held_out = gather_images(out / "images", data)
    teacher, student = recipes(size.value, train_folder)
    if not as_json:
        print(f"A student that ships ({SHOWN}) at work on the held-out pictures:")
        look = first_look(SHOWN, held_out, out / "first-look")
        show(look.table(), "", False)
        print(f"The pictures side by side: {look.picture}\nNow a teacher, a control and a student are trained:")

    def observers() -> list[object]:
        return [ProgressDisplay(messages(quiet))]

    with goes_on_later():
        comparison = distil_recipes(
            teacher, student, out, held_out, observers=observers, on_model=notes(quiet, "measuring")
        )
        show(comparison.table(), comparison.to_json(), as_json)
        page = write_page(out, on_part=notes(quiet, "page:"))
        seeds = repeat_with_seeds(comparison, student, held_out, observers=observers) if size is Size.tiny else None
    if not as_json:
        if seeds:
            print(seeds)
        _show_page(comparison.folder, page)


@app.command()
def distil(
    photos: Annotated[Path, typer.Argument(help="Folder of your pictures; every tenth is held out for the test.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs.", show_default="runs/NAME, from the folder's name")
    ] = None,
    pair: Annotated[str, typer.Option(help="Teacher and student; `distillkit pairs` lists them.")] = "models.lowres",
    size: Scale = Size.lite,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A trained one: model.safetensors, its run folder, or zoo:NAME.", show_default="one is trained"
        ),
    ] = None,
    changes: Changes = None,
    tensorboard: Tensorboard = False,
    mlflow: Mlflow = False,
    wandb: Wandb = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Distil a codec for your pictures: train a teacher, a control and a student, measure them, and write a page."""
    from ..experiment import distil as run
    from ..recipe.changes import parse_changes

    with goes_on_later():
        done = run(
            photos,
            out,
            pair=pair,
            size=size.value,
            teacher=teacher,
            changes=parse_changes(changes or []),
            observers=lambda: trackers(tensorboard=tensorboard, mlflow=mlflow, wandb=wandb),
            console=messages(quiet),
        )
    show(done.comparison.table(), done.comparison.to_json(), as_json)
    if not as_json:
        _show_page(done.comparison.folder, done.page)
        print(f"The student: {done.model}; `distillkit compress photo.png --model {done.model.parent}`")


def _show_page(comparison: Path, page: Path) -> None:
    print(f"Side by side: {comparison / 'comparison.png'}\nThe whole job as a page: {page}")
    if sys.stdout.isatty():  # opens nothing where there is no screen
        webbrowser.open(page.resolve().as_uri())
