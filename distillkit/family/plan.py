"""What a family of runs is: one file, from which every job follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, final

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from ..errors import RecipeError
from ..hooks.components import validate
from ..hooks.loader import Plugins, load_plugins
from ..model.conditioned import measured_at
from ..model.file import MODEL_NAME
from ..model.lmbda import Lmbda, LmbdaRange, as_lmbda
from ..recipe.paths import from_folder
from ..recipe.recipe import TEACHER, ModelFile, Recipe, read_toml
from ..training.setup.teachers import teachers_wanted
from .trained import recipe_of_trained

CONTROL = "control"


def lmbda_name(lmbda: Lmbda) -> str:
    """Return a lambda as the names of runs have it: `0.013`, or `0.0018-0.0483` for a range."""
    return f"{lmbda.low:g}-{lmbda.high:g}" if isinstance(lmbda, LmbdaRange) else f"{lmbda:g}"


def _lmbdas(values: Any) -> Any:
    return [as_lmbda(value) for value in values] if isinstance(values, list) else values  # type: ignore[reportUnknown]


class Variant(BaseModel):
    """One way to train the student; every key that is not named here replaces that of the student's recipe.

    Attributes:
        seeds: of this variant, in place of the family's.
        lmbdas: of this variant, in place of the family's; a part of them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    seeds: list[NonNegativeInt] | None = None
    lmbdas: list[Lmbda] | None = None

    _as_lmbdas = field_validator("lmbdas", mode="before")(_lmbdas)

    @property
    def changes(self) -> dict[str, Any]:
        """The keys of the student's recipe that this variant replaces."""
        return dict(self.model_extra or {})


class WarmStart(BaseModel):
    """Every lambda after the first starts from the weights of the one before, and takes fewer steps.

    Attributes:
        teacher_steps: of the teacher's run.
        student_steps: of each student's run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    teacher_steps: PositiveInt
    student_steps: PositiveInt


@final
class Family(BaseModel):
    """A teacher and variants of its student, at several lambdas and seeds.

    Attributes:
        test: folder of the pictures on which every model is measured; in a file, relative to the file's folder.
        lmbdas: in the order in which they are trained; a range `{low, high}` is one run of a codec of many rates.
        seeds: of the students; the teacher has its recipe's.
        warm_start: how later lambdas start from earlier ones; without it each starts from random weights.
        teacher: the teacher's recipe, without `trains` and `lmbda`; or the file of a trained one, of any pair (or
            `zoo:NAME`), or a list of such files, one for each lambda in their order.
        student: the student's recipe, without `trains`, `lmbda`, `seed` and `teacher`.
        variants: by name. By default `control` (without losses) and `student` (the recipe as it is).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    test: Path
    lmbdas: Annotated[list[Lmbda], Field(min_length=1)] = [0.013]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [0]
    warm_start: WarmStart | None = None
    teacher: dict[str, Any] | list[ModelFile]
    student: dict[str, Any]
    variants: dict[str, Variant] = {CONTROL: Variant.model_validate({"losses": {}}), "student": Variant()}

    _as_lmbdas = field_validator("lmbdas", mode="before")(_lmbdas)

    @field_validator("teacher", mode="before")
    @classmethod
    def _recipe_or_files(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value  # type: ignore[reportUnknown]
        files: list[Any] = value if isinstance(value, list) else [value]  # type: ignore[reportUnknown]
        if not all(isinstance(file, (str, Path)) for file in files):
            raise ValueError(f"expected a recipe, or the file of a trained teacher or a list of such, got {value!r}.")
        return files

    @model_validator(mode="after")
    def _teachers_fit(self) -> Family:
        if isinstance(self.teacher, list) and len(self.teacher) not in (1, len(self.lmbdas)):
            lmbdas = ", ".join(map(str, self.lmbdas))
            raise ValueError(
                f"teacher: expected one file, or one for each of lmbdas ({lmbdas}), got {len(self.teacher)}."
            )
        return self

    @model_validator(mode="after")
    def _variants_fit(self) -> Family:
        for name, variant in self.variants.items():
            if name == "teacher" or not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"expected variants with names of letters, digits, '-' and '_', got {name!r}.")
            if strange := [lmbda for lmbda in variant.lmbdas or [] if lmbda not in self.lmbdas]:
                known, got = (", ".join(map(str, lmbdas)) for lmbdas in (self.lmbdas, strange))
                raise ValueError(f"variant {name}: expected lmbdas out of those of the family ({known}), got {got}.")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Family:
        """Read a family from a TOML file; relative paths in it start from its folder.

        Raises:
            RecipeError: the file cannot be read, is not TOML, or is not a valid family.
        """
        path = Path(path)
        family = validate(cls, read_toml(path, "family"), f"family {path.name}")
        folder = path.resolve().parent
        variants = {
            name: variant.model_copy(update=from_folder(variant.changes, folder))
            for name, variant in family.variants.items()
        }
        teacher = family.teacher
        return family.model_copy(
            update={
                "test": folder / family.test,
                "teacher": [folder / file for file in teacher]
                if isinstance(teacher, list)
                else from_folder(teacher, folder),
                "student": from_folder(family.student, folder),
                "variants": variants,
            }
        )

    @classmethod
    def create(cls, **values: Any) -> Family:
        """Build a family in Python from the keys of the TOML file; paths are relative to the working directory.

        Raises:
            RecipeError: a value is not valid.
        """
        return validate(cls, values, "family")


@final
@dataclass(frozen=True)
class Job:
    """One run of a family.

    Attributes:
        name: of its folder, e.g. `teacher-0.013` or `control-0.013-seed0`.
        variant: `teacher`, or the student's variant.
        lmbda: of the run.
        seed: of the run.
        recipe: what to do; names the files of the jobs in `needs`.
        needs: names of the jobs that must be done before.
        qualities: at which its model is measured; None for one of a single rate.
    """

    name: str
    variant: str
    lmbda: Lmbda
    seed: int
    recipe: Recipe
    needs: tuple[str, ...]
    qualities: tuple[float | None, ...] = (None,)


def plan(family: Family, folder: Path, plugins: Plugins | None = None) -> list[Job]:
    """Return the jobs of a family in the order in which they run; `folder` holds their run folders.

    A student that something teaches gets the teacher of its lambda: a loss that names no teacher, an extension that
    needs one, or its initial weights.

    Raises:
        DistillkitError: a recipe is not valid, or a trained teacher cannot be read.
    """
    return list(_jobs(family, folder, plugins or load_plugins()))


def select(jobs: list[Job], patterns: list[str]) -> list[Job]:
    """Return the jobs whose names match one of the patterns (`*` matches anything), or all if there are none.

    Raises:
        RecipeError: a pattern matches no job.
    """
    for pattern in patterns:
        if not any(fnmatchcase(job.name, pattern) for job in jobs):
            raise RecipeError(f"--only {pattern}: no such job; the family has {', '.join(job.name for job in jobs)}.")
    return [job for job in jobs if not patterns or any(fnmatchcase(job.name, pattern) for pattern in patterns)]


def _jobs(family: Family, folder: Path, plugins: Plugins) -> Iterator[Job]:
    trained = list(_trained(family, plugins))
    jobs = {job.name: job for job in trained}
    for job in trained:
        if job.recipe.initial_weights != jobs[job.name].recipe.initial_weights:
            files = job.recipe.initial_weights, jobs[job.name].recipe.initial_weights
            raise RecipeError(
                f"family teacher: expected trained teachers of different lambdas, got two of {job.lmbda:g}: "
                f"{files[0]} and {files[1]}; make a family for each."
            )
    yield from jobs.values()
    for place, lmbda in enumerate(family.lmbdas):
        teacher = trained[min(place, len(trained) - 1)].name if trained else f"teacher-{lmbda_name(lmbda)}"
        students = list(_students(family, folder, place, teacher, plugins))
        if isinstance(family.teacher, dict) and (
            not isinstance(lmbda, LmbdaRange) or any(teacher in student.needs for student in students)
        ):
            yield _job(family, folder, place, teacher, "teacher", family.teacher | {"trains": "teacher"})
        yield from students


def _trained(family: Family, plugins: Plugins) -> Iterator[Job]:
    """Yield the jobs of teachers that are trained already: their runs take no steps, and are measured like others."""
    for file in family.teacher if isinstance(family.teacher, list) else ():
        recipe = recipe_of_trained(file, family.student.get("data"), plugins)
        lmbda = recipe.lmbda
        name, qualities = f"teacher-{lmbda_name(lmbda)}", measured_at(lmbda, family.lmbdas)
        yield Job(name, "teacher", lmbda, recipe.seed, recipe, (), qualities)


def _students(family: Family, folder: Path, place: int, teacher: str, plugins: Plugins) -> Iterator[Job]:
    lmbda = family.lmbdas[place]
    for seed in _seeds(family):
        for name, variant in family.variants.items():
            seeds = family.seeds if variant.seeds is None else variant.seeds
            if seed not in seeds or lmbda not in (variant.lmbdas or family.lmbdas):
                continue
            recipe = family.student | variant.changes | {"seed": seed}
            job = f"{name}-{lmbda_name(lmbda)}-seed{seed}"
            taught = _taught(validate(Recipe, recipe | {"lmbda": lmbda}, f"family: {job}"), plugins)
            if taught:
                recipe["teacher"] = folder / teacher / MODEL_NAME
            yield _job(family, folder, place, job, name, recipe, (teacher,) if taught else ())


def _taught(recipe: Recipe, plugins: Plugins) -> bool:
    try:
        return TEACHER in teachers_wanted(recipe, plugins)
    except RecipeError:  # of a plugin that is not here; whoever carries the job out reports it
        return bool(recipe.losses or recipe.extensions) or recipe.initial_weights == TEACHER


def _job(
    family: Family,
    folder: Path,
    place: int,
    name: str,
    variant: str,
    recipe: dict[str, Any],
    needs: tuple[str, ...] = (),
) -> Job:
    lmbda, warm = family.lmbdas[place], family.warm_start
    own = family.variants[variant].lmbdas if variant != "teacher" else None
    earlier = [each for each in family.lmbdas[:place] if own is None or each in own]
    if warm and earlier:
        before = name.replace(f"-{lmbda_name(lmbda)}", f"-{lmbda_name(earlier[-1])}", 1)
        steps = warm.teacher_steps if variant == "teacher" else warm.student_steps
        recipe = recipe | {"initial_weights": folder / before / MODEL_NAME, "num_steps": steps}
        needs = (*needs, before)
    settings = validate(Recipe, recipe | {"lmbda": lmbda}, f"family: {name}")
    return Job(name, variant, lmbda, settings.seed, settings, needs, measured_at(lmbda, [lmbda]))


def _seeds(family: Family) -> list[int]:
    """Return all seeds, in the order in which they are first named."""
    seeds = list(family.seeds)
    for variant in family.variants.values():
        seeds += [seed for seed in variant.seeds or [] if seed not in seeds]
    return seeds
