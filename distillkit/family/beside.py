"""Several jobs at once, each as soon as the jobs that it needs are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DistillkitError, RecipeError
from ..training.folder.run_folder import RunFolder
from ..training.preemption import StopRequest, TrainingStopped, stop_on_signal
from .job import Deadline, Task
from .workers import Running, Start

_WAIT_SECONDS = 0.2


def is_trained(folder: Path, name: str) -> bool:
    """Return whether a job has left its model."""
    return RunFolder(folder / name).model.exists()


def carry_out_beside(
    tasks: Sequence[Task], num: int, start: Start, deadline: Deadline, on_job: Callable[[str], None]
) -> None:
    """Carry out tasks, `num` of them at a time; those that need one that failed are left.

    Args:
        tasks: in the order in which they are started.
        num: how many at once.
        start: starts one.
        deadline: after which none is started.
        on_job: called with a line when a job starts or ends.

    Raises:
        DistillkitError: one failed: the first of their errors, once the others are done.
        RecipeError: nothing failed, but a task needs a job that is neither done nor among them.
        TrainingStopped: it was stopped by SIGTERM.
        KeyboardInterrupt: or by Ctrl-C.
    """
    waiting, running = list(tasks), dict[str, Running]()
    failed: list[DistillkitError] = []
    with stop_on_signal() as stop:
        while waiting or running:
            if stop.made:
                waiting = []
                for each in running.values():
                    each.stop()
            _start_ready(waiting, running, num, start, deadline, on_job)
            if not running:
                break
            for name in [name for name, each in running.items() if each.done()]:
                try:
                    why = running.pop(name).result()
                    on_job(f"{name}: {why or 'done'}")
                except DistillkitError as error:
                    failed.append(error)
                    on_job(f"{name}: failed")
            time.sleep(_WAIT_SECONDS)
    _report(stop, failed, waiting, deadline)


def _start_ready(
    waiting: list[Task],
    running: dict[str, Running],
    num: int,
    start: Start,
    deadline: Deadline,
    on_job: Callable[[str], None],
) -> None:
    for task in list(waiting):
        if len(running) == num or (deadline.is_over and running):
            return
        if all(is_trained(task.folder, name) for name in task.job.needs):
            waiting.remove(task)
            on_job(f"{task.job.name}: starts")
            running[task.job.name] = start(replace(task, seconds=deadline.seconds))
        if deadline.is_over:  # as one job at a time does: the first one runs to its first checkpoint
            waiting.clear()


def _report(stop: StopRequest, failed: list[DistillkitError], waiting: list[Task], deadline: Deadline) -> None:
    if stop.by_user:
        raise KeyboardInterrupt
    if stop.made:
        raise TrainingStopped("family: stopped, and saved.")
    if failed:
        raise failed[0]
    if waiting and not deadline.is_over:
        missing = [name for name in waiting[0].job.needs if not is_trained(waiting[0].folder, name)]
        raise RecipeError(
            f"family, job {waiting[0].job.name}: it needs {', '.join(missing)}, which is not done in "
            f"{waiting[0].folder}. Run that first, or copy its run folder here."
        )
