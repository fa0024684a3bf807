"""The whole job: a teacher, a student without it, the student with it, and all three on real files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Literal, final

from rich.console import Console

from .data.held_out import hold_out
from .data.images import check_images
from .errors import DataError, RecipeError
from .evaluation.side_by_side import ComparedModel, Comparison, compare
from .family.trained import recipe_of_trained
from .hooks.loader import Plugins, load_plugins
from .model.conditioned import FIXED_POINTS, measured_at
from .model.file import load_model
from .model.lmbda import LmbdaRange
from .recipe.recipe import Recipe
from .recipe.shipped import load_for_pair
from .report.page import write_page
from .training.display.progress import ProgressDisplay
from .training.display.screens import duration
from .training.distributed import refuse_several
from .training.estimate import estimate_seconds, num_measured
from .training.folder.checkpoint import list_checkpoints
from .training.folder.run_folder import RunFolder
from .training.objectives.objective import build_objective
from .training.setup.codecs import samples_of
from .training.setup.resolve import resolve
from .training.setup.teachers import control_of, teachers_wanted
from .training.train import train

_WORTH = 10  #: a job of fewer times the steps that are measured is not estimated


@final
@dataclass(frozen=True)
class Distilled:
    """What `distil` made.

    Attributes:
        model: the file of the student, which needs neither teacher nor recipe.
        comparison: teacher, control and student on the held-out pictures.
        page: the whole job as an HTML file.
    """

    model: Path
    comparison: Comparison
    page: Path


def distil(
    photos: str | Path,
    out: str | Path | None = None,
    *,
    pair: str = "models.lowres",
    size: str = "lite",
    teacher: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    plugins: Plugins | None = None,
    observers: Callable[[], Sequence[object]] = list,
    console: Console | None = None,
) -> Distilled:
    """Distil a codec for a folder of photographs: teacher, control and student, measured, with a page of it all.

    Every tenth picture is held out. A few steps are measured first, and the time of the whole job is reported. A job
    that was stopped continues when it is called again with the same arguments.

    Args:
        photos: folder of pictures, searched recursively.
        out: gets the runs, the measurements and the page; by default `runs/NAME`, from the folder's name.
        pair: teacher and student. A pair for which no recipes ship trains with those of `models.lowres`.
        size: of both, and of the training: `tiny` (minutes), `lite` (hours) or `paper` (days on a GPU).
        teacher: a trained one, of any pair: its file, its run folder, or `zoo:NAME`; by default one is trained.
        changes: other values for keys of both recipes, as for `Recipe.load`: `{"num_steps": 500}`.
        plugins: where components are registered; by default the installed plugins.
        observers: called for each run; gives observers beside the progress display.
        console: where progress is shown; by default stderr.

    Raises:
        DistillkitError: bad input, or a loss that is not finite.
    """
    refuse_several("distil")
    photos, plugins = Path(photos), plugins or load_plugins()
    out = Path(out) if out is not None else Path("runs") / photos.resolve().name
    console = console or Console(stderr=True, markup=False, emoji=False)

    def shipped(part: Literal["teacher", "student"]) -> Recipe:
        return load_for_pair(pair, size, part, out / "images/train", plugins).changed(changes or {})

    student = shipped("student")
    teaches = shipped("teacher") if teacher is None else recipe_of_trained(teacher, student.data, plugins)
    if teaches.pair.name != pair and "initial_weights" not in (changes or {}):  # its weights belong elsewhere
        student = student.model_copy(update={"initial_weights": "random"})
    # What is wrong with a name or option is known before anything is written.
    resolved = [resolve(recipe, plugins) for recipe in (teaches, student.model_copy(update={"teacher": out}))]
    data = student.data
    _, held_out = hold_out(
        photos,
        out / "images",
        convert=data.convert,
        skip=data.bad_images == "skip",
        samples=samples_of(resolved[0], plugins),
    )
    if left := _time_left(out, teaches, student, plugins):
        console.print(left, highlight=False, soft_wrap=True)
    display = ProgressDisplay(console)

    def note(what: str) -> Callable[[str], None]:
        return lambda part: console.print(f"{what} {part}", highlight=False)

    comparison = distil_recipes(
        teaches,
        student,
        out,
        held_out,
        plugins=plugins,
        observers=lambda: [display, *observers()],
        on_model=note("measuring"),
    )
    page = write_page(out, plugins=plugins, on_part=note("page:"))
    return Distilled(RunFolder(out / "student").model, comparison, page)


def _time_left(out: Path, teacher: Recipe, student: Recipe, plugins: Plugins) -> str:
    """Return a sentence on how long a job takes, or the rest of it; empty where that is not worth measuring."""
    control = control_of(student, plugins)
    recipes = {"teacher": teacher, "control": control, "student": student}
    runs = {name: RunFolder(out / name) for name in recipes}
    file = out / "estimate.json"
    if file.exists():
        seconds = json.loads(file.read_text(encoding="utf-8"))
    else:
        measured = sum(num_measured(recipe, plugins) for recipe in (teacher, control)) * 2
        if sum(recipe.num_steps for recipe in recipes.values()) < _WORTH * measured:
            return ""
        with TemporaryDirectory() as folder:
            place = Path(folder)
            seconds = dict[str, float]()
            seconds["teacher"], model = estimate_seconds(teacher, plugins, place / "teacher")
            seconds["control"], _ = estimate_seconds(control, plugins, place / "control")
            taught = student.model_copy(update={"teacher": model})
            seconds["student"], _ = estimate_seconds(taught, plugins, place / "student")
        file.write_text(json.dumps(seconds) + "\n", encoding="utf-8")
    left = {name: seconds[name] * (1 - _share_done(runs[name], recipes[name])) for name in recipes}
    if not any(left.values()):
        return ""
    parts = ", ".join(f"{name} {duration(time)}" for name, time in left.items() if time)
    return (
        f"Training takes about {duration(sum(left.values()))} on this machine, from a few measured steps ({parts}); "
        "then real files are measured. Ctrl-C stops it, and the same command continues."
    )


def _share_done(run: RunFolder, recipe: Recipe) -> float:
    if run.model.exists():
        return 1.0
    checkpoints = list_checkpoints(run.checkpoints)
    return int(checkpoints[-1].stem.removeprefix("step-")) / recipe.num_steps if checkpoints else 0.0


def distil_recipes(
    teacher: Recipe | Path,
    student: Recipe,
    folder: str | Path,
    images: Sequence[Path],
    *,
    plugins: Plugins | None = None,
    observers: Callable[[], Sequence[object]] = lambda: [ProgressDisplay()],
    on_model: Callable[[str], None] | None = None,
) -> Comparison:
    """Train a teacher, distil it, and measure the result beside its control.

    The control is the same student with the same steps, schedule, seed and crops, but without a teacher, and without
    the losses and extensions that need one: the difference between the two is the gain of distillation. A job that was
    stopped continues where it was.

    Args:
        teacher: recipe of the teacher's run, or the file of one that is trained already.
        student: recipe of the student's run, with losses or an extension; its `teacher` is filled in.
        folder: gets the run folders `teacher`, `control` and `student`, and the folder `comparison`.
        images: held-out pictures.
        plugins: where components are registered; by default the installed plugins.
        observers: called for each run; gives its observers.
        on_model: called with each model's name before it is measured.

    Raises:
        DistillkitError: bad input, or a loss that is not finite.
    """
    refuse_several("distil")
    if not images:
        raise DataError("held-out pictures: expected at least one to measure on, got none; name some.")
    folder = Path(folder)
    plugins = plugins or load_plugins()
    taught = student.model_copy(update={"teacher": folder})
    if not teachers_wanted(taught, plugins):
        raise RecipeError("student recipe: expected losses to distil with, got none; see `distillkit plugins`.")
    # Report what would end the job after hours of training before it starts.
    resolved = resolve(taught, plugins)
    check_images(images, samples=samples_of(resolved, plugins))
    lmbda = teacher.lmbda if isinstance(teacher, Recipe) else load_model(teacher, plugins).lmbda
    models: dict[str, Path] = {}
    if isinstance(teacher, Recipe):
        teacher = train(teacher, folder / "teacher", plugins=plugins, observers=observers())
    models["teacher"] = teacher
    control = control_of(student, plugins)
    models["control"] = train(control, folder / "control", plugins=plugins, observers=observers())
    distilled = student.model_copy(update={"teacher": teacher})
    models["student"] = train(distilled, folder / "student", plugins=plugins, observers=observers())
    objective = build_objective(student.objective.model_dump(), plugins, "recipe objective")
    qualities = measured_at(lmbda, [student.lmbda]) if isinstance(lmbda, LmbdaRange) else FIXED_POINTS
    options: dict[str, Any] = {"objective": objective, "on_model": on_model, "qualities": qualities}
    return compare(models, images, folder / "comparison", plugins=plugins, **options)


@final
@dataclass(frozen=True)
class Seeds:
    """RD costs of control and student at equal seeds, means over the pictures; lower is better.

    Attributes:
        control: of each seed.
        student: of each seed, in the same order.
    """

    control: tuple[float, ...]
    student: tuple[float, ...]

    def __str__(self) -> str:
        """Return a sentence with mean and range of both, and what distillation changes."""
        gains = [100 * (student / control - 1) for control, student in zip(self.control, self.student, strict=True)]
        sides = [
            f"{name} {fmean(costs):.3f} ({min(costs):.3f} to {max(costs):.3f})"
            for name, costs in (("control", self.control), ("student", self.student))
        ]
        return (
            f"RD cost over {len(self.control)} seeds: {', '.join(sides)}; distillation changes it by "
            f"{fmean(gains):+.1f} % ({min(gains):+.1f} to {max(gains):+.1f})."
        )


def repeat_with_seeds(
    first: Comparison,
    student: Recipe,
    images: Sequence[Path],
    num: int = 3,
    *,
    plugins: Plugins | None = None,
    observers: Callable[[], Sequence[object]] = lambda: [ProgressDisplay()],
) -> Seeds:
    """Train control and student of a finished job again from other seeds, with the same teacher, and measure them.

    Args:
        first: what `distil_recipes` returned for `student` and `images`; the runs are beside its folder, in `seeds`.
        student: recipe of the student's run.
        images: held-out pictures.
        num: how many seeds, the first one's included, at least 1.
        plugins: where components are registered; by default the installed plugins.
        observers: called for each run; gives its observers.
    """
    plugins, folder = plugins or load_plugins(), first.folder.parent / "seeds"
    sides = {"control": control_of(student, plugins)}
    sides["student"] = student.model_copy(update={"teacher": _rows(first, "teacher")[0].model})
    costs = {name: [_cost(first, name)] for name in sides}
    objective = build_objective(student.objective.model_dump(), plugins, "recipe objective")
    for seed in range(student.seed + 1, student.seed + num):
        models = {
            name: train(
                recipe.model_copy(update={"seed": seed}),
                folder / f"{name}-{seed}",
                plugins=plugins,
                observers=observers(),
            )
            for name, recipe in sides.items()
        }
        place = folder / f"comparison-{seed}"
        comparison = compare(models, images, place, plugins=plugins, objective=objective)
        for name in models:
            costs[name].append(_cost(comparison, name))
    return Seeds(tuple(costs["control"]), tuple(costs["student"]))


def _rows(comparison: Comparison, name: str) -> list[ComparedModel]:
    """Return a model's measurements: one, or one at each quality."""
    return [row for row in comparison.models if row.name == name or row.name.startswith(f"{name}-q")]


def _cost(comparison: Comparison, name: str) -> float:
    """Return a model's mean cost, over its qualities."""
    costs = [row.evaluation.averages["rd_cost"] for row in _rows(comparison, name)]
    return fmean(cost for cost in costs if cost is not None)  # a model with a lambda has one
