"""The options that send a run's metrics to a tracker of experiments, and the observers that they turn on."""

from __future__ import annotations

from typing import Annotated

import typer

Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Also write the metrics for TensorBoard.")]
Mlflow = Annotated[bool, typer.Option("--mlflow", help="Also log the metrics to MLflow.")]
Wandb = Annotated[bool, typer.Option("--wandb", help="Also log the metrics to Weights & Biases.")]


def trackers(*, tensorboard: bool, mlflow: bool, wandb: bool) -> list[object]:
    """Return the observers that the options name, for one run."""
    observers: list[object] = []
    if tensorboard:
        from ..training.trackers.tensorboard import TensorBoardWriter

        observers.append(TensorBoardWriter())
    if mlflow:
        from ..training.trackers.mlflow import MLflowObserver

        observers.append(MLflowObserver())
    if wandb:
        from ..training.trackers.wandb import WandbObserver

        observers.append(WandbObserver())
    return observers
