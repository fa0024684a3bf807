"""What MLflow is given is what the run logged, in the store that it takes by itself, also after the run continued."""

from __future__ import annotations

import json

import pytest

import distillkit
from distillkit import MLflowObserver

from .test_training import Interrupt, StopAfter


def test_the_metrics_are_in_the_store_of_the_working_folder(recipe, plugins, tmp_path, monkeypatch, held_out):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(None)  # as in a new process: no destination was chosen
    run = tmp_path / "run"
    mine = recipe(schedule={"name": "core.constant"}, validation={"data": held_out, "every": 5, "crops": 2})
    with pytest.raises(Interrupt):
        distillkit.train(mine, run, plugins=plugins, observers=[MLflowObserver(), StopAfter(5)])
    distillkit.train(mine, run, plugins=plugins, observers=[MLflowObserver()])
    client = mlflow.MlflowClient()
    number = (run / "mlflow-run.txt").read_text()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("rate_bpp", "validation/rd_cost"):
        points = {point.step: point.value for point in client.get_metric_history(number, name)}
        assert points == pytest.approx({line["step"]: line[name] for line in lines if name in line})
    assert client.get_run(number).data.tags["model"] == str(run / "model.safetensors")
    assert (tmp_path / "mlruns").is_dir() or (tmp_path / "mlflow.db").is_file()
    mlflow.set_tracking_uri(None)
