"""What TensorBoard is given is what the run logged, also after it went on."""

from __future__ import annotations

import json
import sys

import pytest

import distillkit
from distillkit.errors import DistillkitError
from distillkit.training.trackers.tensorboard import TensorBoardWriter


class Stop(BaseException):
    pass


class StopAt:
    """Ends a run at a checkpoint."""

    @distillkit.hookimpl
    def checkpoint_saved(self, step):
        if step == 5:
            raise Stop


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_the_metrics_are_there(recipe, plugins, tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    mine = recipe(trains="teacher", schedule={"name": "core.constant"})
    with pytest.raises(Stop):
        distillkit.train(mine, run, plugins=plugins, observers=[TensorBoardWriter(), StopAt()])
    distillkit.train(mine, run, plugins=plugins, observers=[TensorBoardWriter()])
    events = read(run / "tensorboard")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"rate_bpp", "psnr_db", "rd_cost", "learning_rate"} <= set(events.Tags()["scalars"])
    for key in ("rate_bpp", "psnr_db"):
        points = {event.step: event.value for event in events.Scalars(key)}
        assert points == pytest.approx({line["step"]: line[key] for line in lines}, rel=1e-6)
    assert "phase/text_summary" in events.Tags()["tensors"]


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(DistillkitError, match="TensorBoard: not installed; `pip install"):
        TensorBoardWriter()
