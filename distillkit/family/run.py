"""Carry out a family: every remaining job in order, then measure. It can stop, and continue later or elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch

from ..data.images import check_images
from ..data.listing import list_images
from ..errors import DataError, RecipeError
from ..evaluation.curve import is_evaluation
from ..evaluation.decode import DecodingProcess
from ..hooks.loader import Plugins, load_plugins
from ..model.lmbda import LmbdaRange
from ..training.display.progress import ProgressDisplay
from ..training.distributed import refuse_several
from ..training.folder.checkpoint import list_checkpoints
from ..training.folder.run_folder import RunFolder
from ..training.setup.codecs import samples_of
from ..training.setup.resolve import resolve
from .beside import carry_out_beside, is_trained
from .job import Deadline, OutOfTimeError, Task, carry_out, portable_modules, results_of
from .plan import Family, Job, plan, select
from .workers import InProcess, scheduler

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


def run_family(
    family: Family,
    folder: str | Path,
    *,
    only: Sequence[str] = (),
    budget_hours: float | None = None,
    plugins: Plugins | None = None,
    observers: Callable[[], Sequence[object]] = lambda: [ProgressDisplay()],
    device: str | None = None,
    jobs: int = 1,
    submit: Literal["slurm", "local"] | None = None,
    submit_options: Mapping[str, Any] | None = None,
    on_job: Callable[[str], None] = lambda line: None,
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
        observers: called for each run of this process; gives its observers.
        device: where to train and measure; by default each recipe's, and the CPU for measuring.
        jobs: how many run at once. Each of several has its own process with its share of torch's threads, and its
            figures are in its run folder alone.
        submit: who starts the jobs; by default this process does.
        submit_options: what the scheduler is to give each job, by submitit's names.
        on_job: called with a line when a job of another process starts or ends.

    Returns:
        The status of each job of the family.

    Raises:
        DistillkitError: bad input, a folder with other runs, or a loss that is not finite. Of several jobs at once,
            those that do not need the one that failed are done first.
        TrainingStopped: several jobs at once were stopped by SIGTERM, and saved.
        KeyboardInterrupt: or by Ctrl-C.
    """
    refuse_several("family")
    folder, plugins = Path(folder).resolve(), plugins or load_plugins()
    planned = plan(family, folder, plugins)
    chosen = select(planned, list(only))
    images = list_images(family.test)
    for job in planned:
        resolve(job.recipe, plugins)
    # Report what would end the family after hours before it starts.
    check_images(images, samples=samples_of(planned[0].recipe, plugins))
    deadline = Deadline(3600 * budget_hours if budget_hours is not None else float("inf"))
    if jobs > 1 or submit is not None:
        start = InProcess if submit is None else scheduler(submit, folder, submit_options or {})
        threads = max(1, torch.get_num_threads() // jobs) if submit is None else 0
        whole = tuple(path.resolve() for path in images)
        about = portable_modules(plugins), tuple(sys.path), device, threads
        tasks = [Task(job, folder, whole, *about, deadline.seconds) for job in chosen]
        carry_out_beside(tasks, jobs, start, deadline, on_job)
        return status(family, folder, plugins)
    with DecodingProcess() as process:
        for job in chosen:
            if not is_trained(folder, job.name):
                _check_needs(job, folder)
            try:
                carry_out(job, folder, images, plugins, device, [deadline, *observers()], process)
            except OutOfTimeError:
                break
            if deadline.is_over:
                break
    return status(family, folder, plugins)


def status(family: Family, folder: str | Path, plugins: Plugins | None = None) -> list[JobStatus]:
    """Return the status of each job of a family, from its folder."""
    folder = Path(folder).resolve()
    jobs = plan(family, folder, plugins)
    done = {job.name for job in jobs if is_trained(folder, job.name)}
    rows = []
    for job in jobs:
        checkpoints = list_checkpoints(RunFolder(folder / job.name).checkpoints)
        step = int(checkpoints[-1].stem.removeprefix("step-")) if checkpoints else 0
        ready = all(name in done for name in job.needs)
        state: State = "done" if job.name in done else "begun" if step else "ready" if ready else "waiting"
        files = list(results_of(folder, job).values())
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
    if missing := [name for name in job.needs if not is_trained(folder, name)]:
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
