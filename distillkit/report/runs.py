"""The runs that a page is about, read from their folders and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from ..errors import DistillkitError, TrainingError
from ..evaluation.curve import Metric
from ..family.gains import TEACHER
from ..family.plan import CONTROL, lmbda_name
from ..model.lmbda import LmbdaRange
from ..recipe.recipe import Recipe
from ..training.folder.run_folder import RunFolder

_MEASURED = ("rate_bpp", "psnr_db", "rd_cost", "encode_seconds", "decode_seconds")
_NAMED = ("name", "source")
_LOGGED = ("step", "phase", "rd_cost", "seconds_per_step")


@final
@dataclass(frozen=True)
class Run:
    """One run on disk.

    Attributes:
        folder: its run folder.
        variant: `teacher`, or the name of the folder without lambda and seed.
        recipe: what it does.
        metrics: the lines of `metrics.jsonl`, without those of the validation.
        validation: what the run measured of itself on held-out crops: `step`, `rd_cost`, `rate_bpp`, `psnr_db`.
        results: what was measured on held-out pictures, as `Evaluation.to_json` writes it, or None; of a model of many
            rates at its middle quality.
        sweep: the same at each quality of a model of many rates; else empty.
        decoded: folder of the decoded pictures, or None.
    """

    folder: Path
    variant: str
    recipe: Recipe
    metrics: tuple[dict[str, Any], ...]
    results: dict[str, Any] | None
    decoded: Path | None
    validation: tuple[dict[str, Any], ...] = ()
    sweep: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def lmbda(self) -> float | None:
        """The trade-off of `results`, or of the run; None for a model of many rates that was not measured."""
        if isinstance(self.recipe.lmbda, LmbdaRange):
            return self.results["lmbda"] if self.results else None
        return self.recipe.lmbda

    @property
    def points(self) -> dict[float, dict[str, Any]]:
        """What was measured on held-out pictures, by lambda."""
        if self.sweep:
            return {results["lmbda"]: results for results in self.sweep}
        return {self.lmbda: self.results} if self.results and self.lmbda is not None else {}

    @property
    def model(self) -> Path | None:
        """The trained model, or None while the run is not done."""
        file = RunFolder(self.folder).model
        return file if file.is_file() else None

    @property
    def calibration(self) -> dict[str, dict[str, Any]]:
        """Loss term -> the record that it measured."""
        records = {}
        for file in sorted((self.folder / "calibration").glob("*.json")):
            record = _json(file).get("record")
            if not isinstance(record, dict):
                raise TrainingError(f"report: {file} holds no record; remove it, and the run measures again.")
            records[file.stem] = record
        return records


@final
@dataclass(frozen=True)
class Runs:
    """What a page is about.

    Attributes:
        title: of the page.
        runs: all of them.
        main: the run that pictures, curves and rankings show.
        is_family: whether there is more than the main run, its teacher and its control.
    """

    title: str
    runs: tuple[Run, ...]
    main: Run
    is_family: bool

    @property
    def metric(self) -> Metric:
        """The quality that the main run was trained for, as far as it was measured."""
        return "ms-ssim" if self.main.results and self.main.results.get("metric") == "ms-ssim" else "psnr"

    @property
    def teacher(self) -> Run | None:
        """The teacher at the main run's lambda."""
        return self._beside(TEACHER, seed=None) or self._teacher_of_many_rates()

    @property
    def control(self) -> Run | None:
        """The student without distillation, at the main run's lambda and seed."""
        return self._beside(CONTROL, seed=self.main.recipe.seed)

    def _beside(self, variant: str, seed: int | None) -> Run | None:
        if self.main.variant == variant:
            return None
        for run in self.runs:
            same_seed = seed is None or run.recipe.seed == seed
            if run.variant == variant and run.recipe.lmbda == self.main.recipe.lmbda and same_seed:
                return run
        return None

    def _teacher_of_many_rates(self) -> Run | None:
        """Return a teacher of many rates, with what was measured of it at the main run's lambda."""
        for run in self.runs:
            if run.variant == TEACHER != self.main.variant and self.main.lmbda in run.points:
                return replace(run, results=run.points[self.main.lmbda])
        return None


def read_runs(path: Path, command: str = "report") -> Runs:
    """Read a run with its teacher and control, or all runs in a folder.

    The teacher is the one that the run's recipe names, or a run beside it; the control is a run beside it called
    `control`. The main run of a family is one of the variant with most measured runs, and among those with most losses,
    teacher and control aside; at the lambda with most of its seeds, and among those with most runs of any variant.

    Args:
        path: a run folder, or a folder of run folders.
        command: that asks, for the messages.

    Raises:
        TrainingError: there is no run in `path`, or a file of one cannot be read.
    """
    path = path.resolve()
    try:
        return _read_runs(path, command)
    except TrainingError as error:
        where = f"{command} {path}: "
        line = str(error).removeprefix(where)
        raise TrainingError(f"{where}{line}") from None


def _read_runs(path: Path, command: str) -> Runs:
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing there"
        raise TrainingError(f"{command} {path}: expected a run folder, or a folder of such, got {got}; check the path.")
    if _is_run(path):
        main = _read(path)
        beside = _read_all(path.parent)
        named = main.recipe.teacher.parent if main.recipe.teacher else None
        if named is not None and _is_run(named) and named.parent != path.parent:
            beside.insert(0, _read(named))
        whole = Runs(main.name, tuple(beside), main, False)
        companions = [run for run in (whole.teacher, whole.control) if run]
        return Runs(main.name, (*companions, main), main, False)
    runs = _read_all(path)
    if not runs:
        raise TrainingError(
            f"{command} {path}: expected a run folder (with recipe.toml), or a folder of run folders, got neither; "
            "`distillkit train`, `distil` and `family` make them."
        )
    return Runs(path.name, tuple(runs), _main(runs), len(runs) > 3)


def _main(runs: list[Run]) -> Run:
    students = [run for run in runs if run.variant not in (TEACHER, CONTROL)] or runs
    students = [run for run in students if run.results] or [run for run in students if run.model] or students
    sizes = Counter(run.variant for run in students)
    methods = {run.variant: len(run.recipe.losses) for run in students}
    variant = max(sizes, key=lambda name: (sizes[name], methods[name]))
    own = [run for run in students if run.variant == variant]
    taught = {run.recipe.lmbda for run in runs if run.variant == TEACHER and run.model}
    seeds = Counter(run.recipe.lmbda for run in own)
    everywhere = Counter(run.recipe.lmbda for run in runs if run.results)

    def least(run: Run) -> tuple[bool, int, int, int]:
        lmbda = run.recipe.lmbda
        return lmbda not in taught, -seeds[lmbda], -everywhere[lmbda], run.recipe.seed

    return min(own, key=least)


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).recipe_file.is_file()


def _read_all(folder: Path) -> list[Run]:
    runs = [_read(child) for child in sorted(folder.iterdir()) if child.is_dir() and _is_run(child)]
    return sorted(runs, key=lambda run: (run.variant != TEACHER, run.variant != CONTROL, run.variant))


def _read(folder: Path) -> Run:
    try:
        recipe = Recipe.load(RunFolder(folder).recipe_file)
    except DistillkitError as error:
        raise TrainingError(f"run {folder.name}: {error}") from None
    end = f"-{lmbda_name(recipe.lmbda)}"
    variant = folder.name.removesuffix(f"-seed{recipe.seed}").removesuffix(end)
    if recipe.trains == "teacher":
        variant = TEACHER
    files = _result_files(folder, "-q*" if isinstance(recipe.lmbda, LmbdaRange) else "")
    sweep = sorted((_results(file) for file in files), key=lambda results: results.get("quality") or 0)
    middle = len(sweep) // 2
    return Run(
        folder,
        variant,
        recipe,
        **_metrics(folder / "metrics.jsonl"),
        results=sweep[middle] if sweep else None,
        decoded=files[middle].parent if files else None,
        sweep=tuple(sweep) if len(sweep) > 1 else (),
    )


def _result_files(folder: Path, ending: str) -> list[Path]:
    """Find what `distillkit family`, `evaluate` or `demo` measured beside this run: `*/NAME/results.json`.

    Of a model of many rates, all of `*/NAME-q0.25/results.json` and so on in one folder, by rising quality.
    """
    found = sorted(folder.parent.glob(f"*/{_escaped(folder.name)}{ending}/results.json"))
    if not found:
        return []
    newest = max(found, key=lambda file: file.stat().st_mtime)
    beside = [file for file in found if file.parent.parent == newest.parent.parent]
    return sorted(beside, key=lambda file: _json(file).get("quality") or 0) if ending else [newest]


def _results(newest: Path) -> dict[str, Any]:
    results = _json(newest)
    images = results.get("images")
    rows = [results.get("averages"), *(images if isinstance(images, list) else [None])]
    if len(rows) < 2 or not all(_has(row, _MEASURED) for row in rows) or not all(_has(row, _NAMED) for row in rows[1:]):
        raise TrainingError(f"{newest} is not what `distillkit evaluate` writes; measure again.")
    return results


def _metrics(file: Path) -> dict[str, tuple[dict[str, Any], ...]]:
    """Return the lines of the training and those of the validation, under the names of `Run`."""
    if not file.is_file():
        return {"metrics": (), "validation": ()}
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    try:
        metrics = tuple(json.loads(line) for line in lines)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{file} cannot be read: {error}.") from None
    validation = tuple(line for line in metrics if _has(line, ("step", "validation/rd_cost")))
    metrics = tuple(line for line in metrics if not _has(line, ("validation/rd_cost",)))
    if not all(_has(line, _LOGGED) for line in metrics):
        raise TrainingError(f"{file}: expected {', '.join(_LOGGED)} in every line; is it of another program?")
    return {
        "metrics": metrics,
        "validation": tuple(
            {key.removeprefix("validation/"): value for key, value in line.items()} for line in validation
        ),
    }


def _has(row: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(row, dict) and all(key in row for key in keys)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{file} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise TrainingError(
            f"{file}: expected an object, got {type(content).__name__}; it was not written by distillkit."
        )
    return content


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
