"""The whole job: a teacher, a student without it, the student with it, and all three on real files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .data.images import check_images
from .errors import DataError, RecipeError
from .evaluation.side_by_side import Comparison, compare
from .hooks.loader import Plugins, load_plugins
from .model.file import load_model
from .recipe.recipe import Recipe
from .training.distributed import refuse_several
from .training.observers import ProgressDisplay
from .training.setup.codecs import samples_of
from .training.setup.resolve import resolve
from .training.train import train


def distil(
    teacher: Recipe | Path,
    student: Recipe,
    folder: str | Path,
    images: Sequence[Path],
    *,
    plugins: Plugins | None = None,
    observers: Callable[[], Sequence[object]] = lambda: [ProgressDisplay()],
) -> Comparison:
    """Train a teacher, distil it, and measure the result beside its control.

    The control is the same student with the same steps, schedule, seed and crops, but without losses or teacher: what
    is gained over it is gained by distillation. A job that was stopped goes on where it was.

    Args:
        teacher: recipe of the teacher's run, or the file of one that is trained already.
        student: recipe of the student's run, with losses; its `teacher` is filled in.
        folder: gets the run folders `teacher`, `control` and `student`, and the folder `comparison`.
        images: held-out pictures.
        plugins: where components are registered; by default the installed plugins.
        observers: called for each run; gives its observers.

    Raises:
        DistillkitError: bad input, or a loss that is not finite.
    """
    refuse_several("distil")
    if not student.losses:
        raise RecipeError("student recipe: expected losses to distil with, got none; see `distillkit plugins`.")
    if not images:
        raise DataError("held-out pictures: expected at least one to measure on, got none; name some.")
    folder = Path(folder)
    plugins = plugins or load_plugins()
    # What would end the job after hours of training is said before.
    resolved = resolve(student.model_copy(update={"teacher": folder}), plugins)
    check_images(images, samples=samples_of(resolved, plugins))
    if not isinstance(teacher, Recipe):
        load_model(teacher, plugins)
    models: dict[str, Path] = {}
    if isinstance(teacher, Recipe):
        teacher = train(teacher, folder / "teacher", plugins=plugins, observers=observers())
    models["teacher"] = teacher
    regularisers = {
        label: options
        for label, options in student.losses.items()
        if not plugins.configure_loss(label, options)[0].needs_teacher
    }
    control = student.model_copy(update={"losses": regularisers, "teacher": None})
    models["control"] = train(control, folder / "control", plugins=plugins, observers=observers())
    distilled = student.model_copy(update={"teacher": teacher})
    models["student"] = train(distilled, folder / "student", plugins=plugins, observers=observers())
    return compare(models, images, folder / "comparison", plugins=plugins)
