"""Observers of a run: hook implementations like any plugin's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from pluggy import PluginManager

from ..errors import TrainingError
from ..hooks.hookspecs import hookimpl
from ..hooks.loader import plugin_manager, report_observer
from .preemption import TrainingStopped
from .run_info import RunInfo


@final
class Observers:
    """All observers of a run: each is called separately, and none can change the run.

    One that raises is reported and left out until the process ends; one that raises `TrainingStopped` ends the run. An
    observer that draws random numbers does not change those of the run. Calls are made as with pluggy:
    `observers.phase_started(run=run, phase=phase, step=step)`.
    """

    def __init__(self, manager: PluginManager) -> None:
        """Call the plugins of `manager`, those of now and those that come."""
        self._manager = manager
        self._alone: dict[int, PluginManager] = {}  # by the observer's id: it alone, so that its errors are its own
        self._left_out: set[int] = set()

    def __getattr__(self, hook: str) -> Callable[..., None]:
        return partial(self._tell, hook)

    def _tell(self, hook: str, **arguments: Any) -> None:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
                observer = implementation.plugin
                if id(observer) in self._left_out:
                    continue
                if id(observer) not in self._alone:
                    self._alone[id(observer)] = plugin_manager()
                    self._alone[id(observer)].register(observer, implementation.plugin_name)
                try:
                    getattr(self._alone[id(observer)].hook, hook)(**arguments)
                except TrainingStopped:
                    raise
                except Exception as error:
                    if isinstance(observer, MetricsFile):  # the run's own record, not somebody's view of it
                        raise
                    self._left_out.add(id(observer))
                    report_observer(observer, hook, error)


@final
class MetricsFile:
    """Writes `metrics.jsonl` into the run folder: one JSON object per line."""

    @hookimpl
    def run_started(self, run: RunInfo) -> None:
        """Drop lines that a killed process wrote after the checkpoint from which the run continues."""
        path = run.folder / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= run.start_step]
        partial = path.with_suffix(".partial")
        with _written(path):
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            partial.replace(path)

    @hookimpl
    def metrics_logged(self, run: RunInfo, metrics: Mapping[str, float | int | str]) -> None:
        """Append one line."""
        self._append(run, metrics)

    @hookimpl
    def validated(self, run: RunInfo, metrics: Mapping[str, float | int]) -> None:
        """Append one line, whose keys but `step` begin with `validation/`."""
        self._append(run, {key if key == "step" else f"validation/{key}": value for key, value in metrics.items()})

    def _append(self, run: RunInfo, metrics: Mapping[str, float | int | str]) -> None:
        path = run.folder / "metrics.jsonl"
        with _written(path), path.open("a", encoding="utf-8") as file:
            finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
            file.write(json.dumps(finite) + "\n")


@contextmanager
def _written(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written: {error.strerror}. The checkpoints are kept: make room, and continue."
        ) from None


def _step_of(line: str) -> float:
    """Return the step of a line of metrics; infinity for one that is none, which is dropped."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf
