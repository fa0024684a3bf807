"""The command line: thin, and quick to answer, since heavy imports happen inside commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import DistillkitError

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    help="Distil large learned image codecs into small, fast ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class DemoSize(StrEnum):
    """Scale of the demo."""

    tiny = "tiny"
    lite = "lite"
    paper = "paper"


def main() -> None:
    """Run the command line; bad input ends with its message and exit code 2, never with a traceback."""
    try:
        app()
    except DistillkitError as error:
        print(f"distillkit: error: {error}", file=sys.stderr)
        sys.exit(2)


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
    """Train a teacher, distil it with FEDS, and compare on real files with the same student trained without it."""
    from .demo import gather_images, recipes
    from .experiment import distil

    out = out or Path("runs") / f"demo-{size.value}"
    train_folder, held_out = gather_images(out / "images", data)
    teacher, student = recipes(size.value, train_folder)
    with _goes_on_later():
        comparison = distil(teacher, student, out, held_out)
    _print(comparison.table(), comparison.to_json(), as_json)
    if not as_json:
        _say(f"Runs, compressed files and pictures: {out}. Side by side: {comparison.folder / 'comparison.png'}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML).")],
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder.  [default: runs/NAME, from the recipe's file name]", show_default=False),
    ] = None,
) -> None:
    """Carry out a recipe, or what is left of it."""
    from .recipe import Recipe

    loaded = Recipe.load(recipe)
    _train(loaded, out or Path("runs") / recipe.stem)


@app.command()
def resume(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Go on with a run that was stopped, from its newest whole checkpoint."""
    from .errors import TrainingError
    from .recipe import Recipe
    from .run_folder import RunFolder

    file = RunFolder(run).recipe_file
    if not file.is_file():
        raise TrainingError(f"run folder {run}: expected a run's folder, but it has no {file.name}; check the path.")
    _train(Recipe.load(file), run)


@app.command()
def evaluate(
    models: Annotated[list[Path], typer.Argument(help="Run folders, or model.safetensors files.")],
    data: Annotated[Path, typer.Option(help="Folder of pictures to measure on.")],
    out: Annotated[Path, typer.Option(help="Folder for compressed files, decoded pictures and results.")] = Path(
        "runs/evaluation"
    ),
    as_json: AsJson = False,
) -> None:
    """Compress pictures to real files with each model, decode them, and measure."""
    from .evaluation.compare import compare
    from .images import list_images

    names = _distinct_names(models)
    comparison = compare(dict(zip(names, models, strict=True)), list_images(data), out)
    _print(comparison.table(), comparison.to_json(), as_json)


@app.command()
def plugins(as_json: AsJson = False) -> None:
    """List the installed plugins and everything that they register."""
    from rich.table import Table

    from .plugins import load_plugins

    loaded = load_plugins()
    table = Table("component", "kind", "what it is", title="Registered components")
    rows = []
    for kind, components in loaded.components.items():
        for name, component in sorted(components.items()):
            summary = (component.__doc__ or "").strip().partition("\n")[0]
            rows.append({"name": name, "kind": kind, "summary": summary})
            table.add_row(name, kind, summary)
    origins = [{"name": p.name, "module": p.module, "distribution": p.distribution} for p in loaded.plugins]
    _print(table, json.dumps({"plugins": origins, "components": rows}, indent=2), as_json)


@app.command()
def pairs(as_json: AsJson = False) -> None:
    """List the registered pairs, each with its options, parameters and complexity."""
    from rich.table import Table

    from .evaluation.describe import describe_pairs
    from .plugins import load_plugins

    rows = describe_pairs(load_plugins())
    table = Table("pair", "options", "part", title="Pairs (kMAC/pixel by torch.utils.flop_counter, at 256x256)")
    table.add_column("parameters", justify="right")
    table.add_column("kMAC/pixel", justify="right")
    for row in rows:
        options = ", ".join(f"{key} = {value}" for key, value in row["options"].items())
        size = f"{row['num_parameters'] / 1e6:.2f} M"
        table.add_row(row["pair"], options, row["part"], size, f"{row['kmac_per_pixel']:.1f}")
    _print(table, json.dumps(rows, indent=2), as_json)


def _train(recipe: Any, folder: Path) -> None:
    from .observers import ProgressDisplay
    from .trainer import train as run

    with _goes_on_later():
        model = run(recipe, folder, observers=[ProgressDisplay()])
    _say(f"Trained model: {model}")


@contextmanager
def _goes_on_later() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("distillkit: stopped; the same command, or `distillkit resume RUN`, goes on.", file=sys.stderr)
        raise typer.Exit(130) from None


def _distinct_names(models: list[Path]) -> list[str]:
    names = [(path.parent if path.is_file() else path).resolve().name for path in models]
    return [name if names.count(name) == 1 else f"{index}-{name}" for index, name in enumerate(names, 1)]


def _print(table: Table, as_text: str, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        print(as_text.rstrip())
    else:
        Console().print(table)


def _say(text: str) -> None:
    print(text)
