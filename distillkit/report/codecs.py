"""The trained codecs of a page: the main run's, its teacher's and its control's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..errors import DistillkitError
from ..family.gains import TEACHER
from ..hooks.loader import Plugins
from ..model.complexity import kmac_per_pixel, num_parameters, parameters_by_part
from ..model.file import TrainedModel, load_model
from ..model.zoo import located
from .runs import Runs


@final
@dataclass(frozen=True)
class Side:
    """One codec.

    Attributes:
        series: `teacher`, `control` or `student`: how it is drawn.
        label: what it is called.
        model: the codec.
        num_parameters: of the whole codec.
        parameters: by part.
        kmac_per_pixel: thousands of multiply-accumulates per pixel.
    """

    series: str
    label: str
    model: TrainedModel
    num_parameters: int
    parameters: dict[str, int]
    kmac_per_pixel: float


@final
@dataclass(frozen=True)
class Codecs:
    """What could be loaded, and why the rest could not.

    Attributes:
        student: the main run's codec, whatever part of a pair it is.
        teacher: its teacher.
        control: the same student without distillation.
        notes: what is missing.
    """

    student: Side | None
    teacher: Side | None
    control: Side | None
    notes: tuple[str, ...]

    @property
    def all(self) -> list[Side]:
        """Those that are there: teacher, control, student."""
        return [side for side in (self.teacher, self.control, self.student) if side]

    @staticmethod
    def load(runs: Runs, plugins: Plugins, device: str = "cpu") -> Codecs:
        """Load the models; one that cannot be loaded is left out."""
        notes: list[str] = []
        how = plugins, device
        own = runs.main.recipe.pair.options.get("teacher")  # of a pair that keeps a trained codec, as `models.light`
        named = Path(own) if isinstance(own, str) else runs.main.recipe.teacher
        teacher = (runs.teacher.model if runs.teacher else None) or (
            named if named and located(named).exists() else None
        )
        main = TEACHER if runs.main.variant == TEACHER else "student"
        student = _side(main, runs.main.variant, runs.main.model, how, notes)
        taught_by = _side(TEACHER, TEACHER, teacher, how, notes)
        control = _side("control", "control", runs.control.model if runs.control else None, how, notes)
        if runs.main.model is None:
            notes.append(f"{runs.main.name} is not done yet, so there is no trained model to show.")
        elif taught_by is None and main != TEACHER:
            notes.append("There is no trained teacher beside this run.")
        if main != TEACHER and runs.main.recipe.losses:
            notes += _about_control(runs)
        return Codecs(student, taught_by, control, tuple(notes))


def _about_control(runs: Runs) -> list[str]:
    """Report what is missing of the control: without it, the page cannot show the gain of distillation."""
    if runs.control is None:
        return [
            "There is no control beside this run, so this page cannot tell what distillation gained: train the same "
            "student without losses, at the same lambda and seed, in a folder `control` beside it."
        ]
    if runs.control.results is None:
        return [f"The control, {runs.control.name}, has not been measured on held-out pictures."]
    return []


def _side(series: str, label: str, file: Path | None, how: tuple[Plugins, str], notes: list[str]) -> Side | None:
    if file is None:
        return None
    try:
        model = load_model(file, *how)
    except DistillkitError as error:
        notes.append(f"The model of {label} cannot be loaded: {error}")
        return None
    module = model.codec.module
    return Side(series, label, model, num_parameters(module), parameters_by_part(module), kmac_per_pixel(model.codec))
