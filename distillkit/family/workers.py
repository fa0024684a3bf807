"""Where jobs of a family run beside one another: in processes here, or wherever a scheduler puts them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, final

from ..data.processes import start_pool
from ..errors import DistillkitError, TrainingError
from .job import Task

_KILLED = "expected its process to finish, got one that was killed, perhaps for lack of memory; run fewer jobs at once"


class Running(Protocol):
    """A job in work."""

    def done(self) -> bool:
        """Return whether it ended."""
        ...

    def result(self) -> str | None:
        """Return what its task returned; wait for it.

        Raises:
            DistillkitError: it failed.
        """
        ...

    def stop(self) -> None:
        """Ask it to end after the current step."""
        ...


Start = Callable[[Task], Running]


@final
class InProcess:
    """A job in its own process, which may die while the others continue."""

    def __init__(self, task: Task) -> None:
        """Start it."""
        self._name = task.job.name
        self._pool: ProcessPoolExecutor = start_pool(1)
        self._pid: Future[int] = self._pool.submit(os.getpid)
        self._future: Future[str | None] = self._pool.submit(task)
        self._stopped = False

    def done(self) -> bool:
        """Return whether it ended."""
        return self._future.done()

    def result(self) -> str | None:
        """Return what its task returned."""
        try:
            return self._future.result()
        except BrokenProcessPool:
            if self._stopped:
                return "stopped"
            raise TrainingError(f"family, job {self._name}: {_KILLED}.") from None
        finally:
            self._pool.shutdown(wait=False)

    def stop(self) -> None:
        """Send it SIGTERM, once."""
        if not self._stopped and self._pid.done():
            self._stopped = True
            with suppress(ProcessLookupError):
                os.kill(self._pid.result(), signal.SIGTERM)


@final
class Submitted:
    """A job that a scheduler has."""

    def __init__(self, job: Any, name: str) -> None:
        """Take what submitit gave for it."""
        self._job, self._name = job, name
        self._stopped = False

    def done(self) -> bool:
        """Return whether it ended."""
        return bool(self._job.done())

    def result(self) -> str | None:
        """Return what its task returned."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return self._job.result()
        except (FailedJobError, UncompletedJobError) as error:
            if self._stopped:
                return "stopped"
            reason = str(error).strip().splitlines()[-1]
            raise TrainingError(
                f"family, job {self._name}: the scheduler's job {self._job.job_id} failed; see "
                f"{self._job.paths.stderr}: {reason}"
            ) from None

    def stop(self) -> None:
        """Have the scheduler end it, once: it saves after the current step."""
        if not self._stopped:
            self._stopped = True
            self._job.cancel()


def scheduler(name: str, folder: Path, options: Mapping[str, Any]) -> Start:
    """Return what hands a task to a scheduler.

    Args:
        name: `slurm`, or `local`, which starts processes on this machine.
        folder: gets submitit's files, in `submitted/`.
        options: what each job is to have, by submitit's names.

    Raises:
        DistillkitError: submitit is not installed, the scheduler is not there, or an option is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise DistillkitError(
            "family --submit: expected submitit to be installed; `pip install 'distillkit-lic[submitit]'`."
        ) from None
    try:
        executor = submitit.AutoExecutor(folder / "submitted", cluster=name)
        executor.update_parameters(**options)
    except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
        raise DistillkitError(
            f"family --submit {name}: the scheduler or an option of --submit-set cannot be used: "
            f"{' '.join(str(error).split())[:300]}; correct it."
        ) from None

    def start(task: Task) -> Running:
        executor.update_parameters(name=task.job.name)
        return Submitted(executor.submit(task), task.job.name)

    return start
