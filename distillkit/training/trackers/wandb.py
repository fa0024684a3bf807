"""An observer that sends a run's metrics to Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final
from uuid import uuid4

from ...hooks.hookspecs import hookimpl
from ..run_info import RunInfo
from .library import library


@final
class WandbObserver:
    """Logs every metric and the recipe to Weights & Biases; a run that continues keeps its identifier there.

    Set the destination as for any use of it: `wandb login`, `WANDB_PROJECT`, `WANDB_MODE=offline`. Files are in the run
    folder.
    """

    def __init__(self) -> None:
        self._wandb = library("wandb")
        self._run: Any = None

    @hookimpl
    def run_started(self, run: RunInfo) -> None:
        """Begin a run, or continue the one whose identifier is in the run folder."""
        self.close()
        file = run.folder / "wandb-run.txt"
        known = file.read_text(encoding="utf-8") if file.exists() else uuid4().hex
        file.write_text(known, encoding="utf-8")
        config: dict[str, Any] = run.recipe.model_dump(mode="json")
        self._run = self._wandb.init(id=known, name=run.name, resume="allow", dir=str(run.folder), config=config)

    @hookimpl
    def metrics_logged(self, metrics: Mapping[str, float | int | str]) -> None:
        """Log one point of every curve."""
        self._run.log({name: value for name, value in metrics.items() if name != "step"}, step=int(metrics["step"]))

    @hookimpl
    def validated(self, metrics: Mapping[str, float | int]) -> None:
        """Log one point of the curves on held-out crops."""
        numbers = {f"validation/{name}": value for name, value in metrics.items() if name != "step"}
        self._run.log(numbers, step=int(metrics["step"]))

    @hookimpl
    def run_finished(self, model: Path) -> None:
        """Record the model's path, and end the run there."""
        self._run.summary["model"] = str(model)
        self.close()

    def close(self) -> None:
        """End the run there; also called when a run ends by an error."""
        if self._run is not None:
            self._run.finish()
            self._run = None
