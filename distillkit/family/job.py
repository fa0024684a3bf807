"""One job of a family, as any process can carry it out: train, then measure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, final

from ..errors import DistillkitError
from ..evaluation.decode import DecodingProcess
from ..evaluation.evaluate import evaluate_model
from ..hooks.hookspecs import hookimpl
from ..hooks.loader import Plugins, load_plugins
from ..hooks.modules import modules_of
from ..training.folder.run_folder import RunFolder
from ..training.objectives.objective import build_objective
from ..training.preemption import TrainingStopped
from ..training.setup.resolve import resolve
from ..training.train import train
from .plan import Job


class OutOfTimeError(TrainingStopped):
    """The family's hours are over."""


@final
class Deadline:
    """Ends a run at the first checkpoint after a moment."""

    def __init__(self, seconds: float) -> None:
        """Begin to count."""
        self._moment = monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the moment has come."""
        return monotonic() > self._moment

    @property
    def seconds(self) -> float:
        """What is left."""
        return self._moment - monotonic()

    @hookimpl
    def checkpoint_saved(self) -> None:
        """Stop here: the run will continue from this checkpoint."""
        if self.is_over:
            raise OutOfTimeError


def carry_out(
    job: Job,
    folder: Path,
    images: Sequence[Path],
    plugins: Plugins,
    device: str | None,
    observers: Sequence[object],
    process: DecodingProcess,
) -> None:
    """Train a job's model, if that is not done, and measure it.

    Args:
        job: what to do; the jobs that it needs are done.
        folder: of the family.
        images: on which the model is measured.
        plugins: where its components are registered.
        device: where to train and measure; None leaves that to the recipe, and measures on the CPU.
        observers: of the run.
        process: where files are decoded.

    Raises:
        DistillkitError: bad input, a folder with another run, or a loss that is not finite.
        TrainingStopped: an observer, or a signal, stopped it.
    """
    run = RunFolder(folder / job.name)
    if run.model.exists():
        run.check_same(resolve(job.recipe, plugins), plugins, paths_too=False)
    else:
        recipe = job.recipe if device is None else job.recipe.changed({"device": device})
        train(recipe, run.path, plugins=plugins, observers=observers)
    for quality, file in results_of(folder, job).items():
        if not file.exists():
            options: dict[str, Any] = {"plugins": plugins, "process": process, "quality": quality}
            objective = build_objective(job.recipe.objective.model_dump(), plugins, "recipe objective")
            evaluate_model(run.model, images, file.parent, objective=objective, device=device or "cpu", **options)


def results_of(folder: Path, job: Job) -> dict[float | None, Path]:
    """Return the file of each measurement: one, or one for each quality of a model of many rates."""
    names = {quality: job.name if quality is None else f"{job.name}-q{quality:g}" for quality in job.qualities}
    return {quality: folder / "evaluation" / name / "results.json" for quality, name in names.items()}


@final
@dataclass(frozen=True)
class Task:
    """A job, and all that another process needs to carry it out.

    Attributes:
        job: the job.
        folder: of the family.
        images: on which its model is measured.
        modules: of plugins that are not installed, by name.
        path: where modules are looked for.
        device: see `carry_out`.
        threads: of torch; 0 leaves them as they are.
        seconds: after which it stops at a checkpoint.
    """

    job: Job
    folder: Path
    images: tuple[Path, ...]
    modules: dict[str, str]
    path: tuple[str, ...]
    device: str | None
    threads: int
    seconds: float

    def __call__(self) -> str | None:
        """Carry it out; return why it stopped before it was done, or None."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        sys.path[:] = [*sys.path, *(each for each in self.path if each not in sys.path)]
        plugins = load_plugins(**{name: import_module(module) for name, module in self.modules.items()})
        try:
            with DecodingProcess() as process:
                deadline = Deadline(self.seconds)
                carry_out(self.job, self.folder, self.images, plugins, self.device, [deadline], process)
        except OutOfTimeError:
            return "out of time"
        except (TrainingStopped, KeyboardInterrupt):
            return "stopped"
        return None

    def checkpoint(self, *_: Any) -> Any:
        """Return what submitit is to start again, where the scheduler takes its machine away: it continues."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def portable_modules(plugins: Plugins) -> dict[str, str]:
    """Return the modules of plugins that are not installed, by name, for processes that run jobs.

    Raises:
        DistillkitError: one is an object that no module holds.
    """
    modules, others = modules_of(plugins)
    if others:
        raise DistillkitError(
            f"family: expected plugins that other processes can import, got {', '.join(others)}, which no module "
            "holds; put it into a module, or run one job at a time."
        )
    return modules
