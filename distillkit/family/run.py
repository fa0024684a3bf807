"""Carry out a family: every remaining job in order, then measure. It can stop, and continue later or elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal, final

from ..data.images import check_images
from ..data.listing import list_images
from ..errors import DataError, RecipeError
from ..evaluation.curve import is_evaluation
from ..evaluation.decode import DecodingProcess
from ..evaluation.evaluate import evaluate_model
from ..hooks.hookspecs import hookimpl
from ..hooks.loader import Plugins, load_plugins
from ..model.conditioned import FIXED_POINTS
from ..model.lmbda import LmbdaRange
from ..training.display.progress import ProgressDisplay
from ..training.distributed import refuse_several
from ..training.folder.checkpoint import list_checkpoints
from ..training.folder.run_folder import RunFolder
from ..training.objectives.objective import build_objective
from ..training.preemption import TrainingStopped
from ..training.setup.codecs import samples_of
from ..training.setup.resolve import resolve
from ..training.train import train
from .plan import Family, Job, plan, select

State = Literal["done", "begun", "ready", "waiting"]


@final
@dataclass(frozen=True)
class JobStatus:
    """The status of a job.

    Attributes:
        job: the job.
        state: `done` (trained), `begun`, `ready` to begin, or `waiting` for the jobs that it needs.
        step: steps of which the result is on disk.
        results: what was measured on the family's pictures, as `Evaluation.to_json` writes it, or None; of a model of
            many rates at its middle quality.
        sweep: the same at every quality of a model of many rates; else empty.
    """

    job: Job
    state: State
    step: int
    results: dict[str, Any] | None
    sweep: tuple[dict[str, Any], ...] = ()


class _OutOfTimeError(TrainingStopped):
    pass


@final
class _Deadline:
    """Ends a run at the first checkpoint after a moment."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    @hookimpl
    def checkpoint_saved(self) -> None:
        """Stop here: the run will continue from this checkpoint."""
        if monotonic() > self.moment:
            raise _OutOfTimeError


def run_family(
    family: Family,
    folder: str | Path,
    *,
    only: Sequence[str] = (),
    budget_hours: float | None = None,
    plugins: Plugins | None = None,
    observers: Callable[[], Sequence[object]] = lambda: [ProgressDisplay()],
) -> list[JobStatus]:
    """Carry out the jobs of a family that remain, and measure each model on the family's pictures.

    Each job has a run folder in `folder`, and nothing else is stored: parts that were run on other machines are merged
    by copying their run folders into one.

    Args:
        family: what to do.
        folder: gets one run folder per job, and `evaluation/`.
        only: names of jobs, or patterns of names; the others are not run.
        budget_hours: after this many hours only the steps up to the next checkpoint are taken.
        plugins: where components are registered; by default the installed plugins.
        observers: called for each run; gives its observers.

    Returns:
        The status of each job of the family.

    Raises:
        DistillkitError: bad input, a folder with other runs, or a loss that is not finite.
    """
    refuse_several("family")
    folder, plugins = Path(folder).resolve(), plugins or load_plugins()
    jobs = plan(family, folder, plugins)
    chosen = select(jobs, list(only))
    images = list_images(family.test)
    for job in jobs:
        resolve(job.recipe, plugins)
    # Report what would end the family after hours before it starts.
    check_images(images, samples=samples_of(jobs[0].recipe, plugins))
    deadline = _Deadline(monotonic() + 3600 * budget_hours if budget_hours is not None else float("inf"))
    with DecodingProcess() as process:
        for job in chosen:
            run = RunFolder(folder / job.name)
            if run.model.exists():
                run.check_same(resolve(job.recipe, plugins), plugins, paths_too=False)
            else:
                _check_needs(job, folder)
                try:
                    train(job.recipe, run.path, plugins=plugins, observers=[deadline, *observers()])
                except _OutOfTimeError:
                    break
            for quality, file in _results(folder, job).items():
                if not file.exists():
                    options: dict[str, Any] = {"plugins": plugins, "process": process, "quality": quality}
                    objective = build_objective(job.recipe.objective.model_dump(), plugins, "recipe objective")
                    evaluate_model(run.model, images, file.parent, objective=objective, **options)
            if monotonic() > deadline.moment:
                break
    return status(family, folder, plugins)


def status(family: Family, folder: str | Path, plugins: Plugins | None = None) -> list[JobStatus]:
    """Return the status of each job of a family, from its folder."""
    folder = Path(folder).resolve()
    jobs = plan(family, folder, plugins)
    done = {job.name for job in jobs if RunFolder(folder / job.name).model.exists()}
    rows = []
    for job in jobs:
        checkpoints = list_checkpoints(RunFolder(folder / job.name).checkpoints)
        step = int(checkpoints[-1].stem.removeprefix("step-")) if checkpoints else 0
        ready = all(name in done for name in job.needs)
        state: State = "done" if job.name in done else "begun" if step else "ready" if ready else "waiting"
        files = list(_results(folder, job).values())
        found = [_read(file) for file in files if file.exists()]
        results = found[len(found) // 2] if len(found) == len(files) else None
        sweep = tuple(found) if results is not None and len(files) > 1 else ()
        rows.append(JobStatus(job, state, job.recipe.num_steps if state == "done" else step, results, sweep))
    return rows


def status_json(rows: Sequence[JobStatus]) -> str:
    """Return the status as JSON: one object a job."""
    content = [
        {
            "job": row.job.name,
            "variant": row.job.variant,
            "lmbda": asdict(row.job.lmbda) if isinstance(row.job.lmbda, LmbdaRange) else row.job.lmbda,
            "seed": row.job.seed,
            "state": row.state,
            "step": row.step,
            "num_steps": row.job.recipe.num_steps,
            "needs": row.job.needs,
            "averages": row.results["averages"] if row.results else None,
        }
        for row in rows
    ]
    return json.dumps(content, indent=2) + "\n"


def _check_needs(job: Job, folder: Path) -> None:
    if missing := [name for name in job.needs if not RunFolder(folder / name).model.exists()]:
        raise RecipeError(
            f"family, job {job.name}: it needs {', '.join(missing)}, which is not done in {folder}. Run that first, or "
            "copy its run folder here."
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        results = {}
    if not is_evaluation(results):
        raise DataError(f"family: {file}: expected what an evaluation writes, got something else; remove it.")
    return results


def _results(folder: Path, job: Job) -> dict[float | None, Path]:
    """Return the file of each measurement: one, or one for each quality of a model of many rates."""
    qualities = FIXED_POINTS if isinstance(job.lmbda, LmbdaRange) else (None,)
    names = {quality: job.name if quality is None else f"{job.name}-q{quality:g}" for quality in qualities}
    return {quality: folder / "evaluation" / name / "results.json" for quality, name in names.items()}
