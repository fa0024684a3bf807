"""An observer that sends a run's metrics to MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import final

from ...hooks.hookspecs import hookimpl
from ..run_info import RunInfo
from .library import library


@final
class MLflowObserver:
    """Logs every metric, the recipe and the model's path to MLflow; a run that continues keeps its MLflow run.

    Set the destination as for any use of MLflow: `MLFLOW_TRACKING_URI`, `mlflow.set_experiment`. Without one, it is
    MLflow's own; with `mlflow-skinny` (the extra `mlflow`), which cannot write a database, the folder `mlruns` in the
    working folder.
    """

    def __init__(self) -> None:
        self._mlflow = library("mlflow")
        if not self._mlflow.is_tracking_uri_set() and find_spec("sqlalchemy") is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            self._mlflow.set_tracking_uri((Path.cwd() / "mlruns").as_uri())

    @hookimpl
    def run_started(self, run: RunInfo) -> None:
        """Begin a run, or continue the one whose identifier is in the run folder."""
        file = run.folder / "mlflow-run.txt"
        known = file.read_text(encoding="utf-8") if file.exists() else None
        self._mlflow.end_run()
        begun = self._mlflow.start_run(run_id=known, run_name=None if known else run.name)
        file.write_text(begun.info.run_id, encoding="utf-8")
        self._mlflow.log_text(run.recipe.to_toml(), "recipe.toml")

    @hookimpl
    def metrics_logged(self, metrics: Mapping[str, float | int | str]) -> None:
        """Log one point of every curve."""
        numbers = {name: value for name, value in metrics.items() if name != "step" and not isinstance(value, str)}
        self._mlflow.log_metrics(numbers, step=int(metrics["step"]))

    @hookimpl
    def validated(self, metrics: Mapping[str, float | int]) -> None:
        """Log one point of the curves on held-out crops."""
        numbers = {f"validation/{name}": value for name, value in metrics.items() if name != "step"}
        self._mlflow.log_metrics(numbers, step=int(metrics["step"]))

    @hookimpl
    def run_finished(self, model: Path) -> None:
        """Record the model's path, and end the MLflow run."""
        self._mlflow.set_tag("model", str(model))

    def close(self) -> None:
        """End the MLflow run; also called when a run ends by an error."""
        self._mlflow.end_run()
