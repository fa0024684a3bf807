"""Weights & Biases: what its offline mode writes for a run that is interrupted and continued."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

import distillkit

wandb = pytest.importorskip("wandb", reason="the extra `wandb` is not installed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_offline(recipe, held_out, tmp_path, plugins, monkeypatch):
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path), "PROJECT": "tests"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)

    class Stop:
        @distillkit.hookimpl
        def checkpoint_saved(self, step):
            if step == 2:
                raise distillkit.TrainingStopped("enough")

    ours = recipe(num_steps=4, log_every=1, checkpoint_every=2, validation={"data": held_out, "every": 4, "crops": 2})
    run = tmp_path / "run"
    with pytest.raises(distillkit.TrainingStopped):
        distillkit.train(ours, run, plugins=plugins, observers=[distillkit.WandbObserver(), Stop()])
    identifier = (run / "wandb-run.txt").read_text()
    model = distillkit.train(ours, run, plugins=plugins, observers=[distillkit.WandbObserver()])
    wandb.teardown()  # its process writes what is left
    assert (run / "wandb-run.txt").read_text() == identifier
    parts = [records(file) for file in sorted((run / "wandb").glob(f"offline-run-*-{identifier}/run-*.wandb"))]
    assert len(parts) == 2
    logged = [line for part in parts for line in part["history"]]
    assert [line["_step"] for line in logged] == [1, 2, 3, 4]
    written = distillkit_metrics(run)
    for line in logged:
        assert line["rd_cost"] == written[line["_step"]]["rd_cost"]
    assert logged[-1]["validation/psnr_db"] == written[4]["validation/psnr_db"]
    assert parts[1]["summary"]["model"] == str(model)
    assert parts[0]["config"]["num_steps"] == 4


def distillkit_metrics(run: Path) -> dict[int, dict]:
    merged: dict[int, dict] = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        merged.setdefault(line["step"], {}).update(line)
    return merged


def messages(data: bytes):
    """The messages in its file: a log as LevelDB's, 7 bytes to begin with, then blocks of 32 KiB with parts of them."""
    place, message = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:  # no room for a part's head: zeros
            place += left
            continue
        length, kind = struct.unpack("<4xHB", data[place : place + 7])  # 1: whole, 2, 3, 4: first, middle, last part
        message = (message if kind in (3, 4) else b"") + data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield message


def records(file: Path) -> dict:
    from wandb.proto import wandb_internal_pb2

    found: dict = {"history": [], "summary": {}, "config": {}}
    for message in messages(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            found["history"].append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            found["summary"] |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "run":
            found["config"] |= {_key(item): json.loads(item.value_json) for item in record.run.config.update}
    return found


def _key(item) -> str:
    return item.key or ".".join(item.nested_key)
