"""Nothing is lost: kills, a full disk, a folder that cannot be written, what vanished, and losses that run away."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import distillkit
from distillkit.errors import CheckpointError, DivergedError, RecipeError, TrainingError
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint
from tests.training.test_checkpoint import full_disk
from tests.training.test_training import FEDS, Interrupt, Record, StopAfter, same, weights

ROOT = Path(__file__).parents[2]


def steps_logged(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_kills_at_any_moment():
    """The short form of `python benchmarks/faults.py`, which kills fifty times."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "benchmarks/faults.py", "--kills", "2", "--steps", "10", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] == 2
    assert counts["same_weights"]
    assert counts["same_metrics"]


class FullDisk:
    """The disk is full once a checkpoint is written."""

    def __init__(self, step, num_bytes):
        self.step, self.num_bytes = step, num_bytes
        self.disk = None

    @distillkit.hookimpl
    def checkpoint_saved(self, step):
        if step == self.step:
            self.disk = full_disk(self.num_bytes)
            self.disk.__enter__()

    def close(self):
        assert self.disk is not None
        self.disk.__exit__(None, None, None)


@pytest.mark.parametrize(("num_bytes", "said"), [(4096, "step-00000006"), (1, "metrics.jsonl")])
def test_a_disk_that_is_full(recipe, tmp_path, plugins, num_bytes, said):
    r = recipe(checkpoint_every=2)
    disk = FullDisk(4, num_bytes)
    with pytest.raises((CheckpointError, TrainingError), match=rf"{said}.*: cannot be written: File too large"):
        distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[disk])
    disk.close()
    assert not list((tmp_path / "run").rglob("*.partial"))
    record = Record()
    resumed = distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[record])
    assert record.events[0][1] == 4
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    assert same(weights(resumed), weights(whole))
    assert steps_logged(tmp_path / "run") == steps_logged(tmp_path / "whole")


@pytest.mark.slow
def test_a_small_disk_of_its_own(tmp_path):
    """A file system with room for two checkpoints and no third, as the command meets it."""
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*mount, "mount -t tmpfs tmpfs /mnt"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (128, 128), (90, 120, 60)).save(tmp_path / "images" / "one.png")
    (tmp_path / "recipe.toml").write_text(
        """
        trains = "teacher"
        num_steps = 4
        checkpoint_every = 1
        pair = {name = "models.cheng2020", size = "tiny"}
        data = {train = "images", crop = 64, batch_size = 1}
        optimizer = {name = "adam"}
        """
    )
    train = f"{sys.executable} -W ignore -m distillkit train {tmp_path}/recipe.toml --out"
    small = f"mkdir disk && mount -t tmpfs -o size=32m tmpfs disk && {train} disk/run"
    small += "; status=$?; cp -r disk/run kept; exit $status"
    done = subprocess.run([*mount, small], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "step-00000003.safetensors: cannot be written: No space left on device" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert [path.name for path in list_checkpoints(tmp_path / "kept" / "checkpoints")] == [
        "step-00000001.safetensors",
        "step-00000002.safetensors",
    ]
    for folder in ("kept", "whole"):
        subprocess.run(f"{train} {folder}", shell=True, cwd=tmp_path, capture_output=True, check=True)
    assert same(*(weights(tmp_path / folder / "model.safetensors") for folder in ("kept", "whole")))


def test_a_folder_that_cannot_be_written(recipe, plugins):
    if not Path("/sys").is_dir():
        pytest.skip("no /sys, where nobody may write")
    with pytest.raises(TrainingError, match=r"run folder /sys/distillkit: cannot be written: "):
        distillkit.train(recipe(), "/sys/distillkit", plugins=plugins)


def test_what_vanished(recipe, teacher_file, tmp_path, plugins):
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(teacher_file.read_bytes())
    r = recipe(losses=FEDS, teacher=teacher, checkpoint_every=2)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(2)])
    with pytest.raises(RecipeError, match=r"small\.pair"):
        distillkit.train(r, tmp_path / "run", plugins=distillkit.load_plugins())
    teacher.unlink()
    with pytest.raises(CheckpointError, match=r"model .*teacher\.safetensors: no such file"):
        distillkit.train(r, tmp_path / "run", plugins=plugins)
    teacher.write_bytes(teacher_file.read_bytes())
    resumed = distillkit.train(r, tmp_path / "run", plugins=plugins)
    again = r.model_copy(update={"teacher": teacher_file})
    assert same(weights(resumed), weights(distillkit.train(again, tmp_path / "whole", plugins=plugins)))


class TestRollback:
    class Poison:
        """Spoils the trained codec the first few times that a step is logged."""

        def __init__(self, step, times):
            self.step, self.times, self.codec = step, times, None

        @distillkit.hookimpl
        def metrics_logged(self, metrics):
            if metrics["step"] == self.step and self.times:
                self.times -= 1
                self.codec.module.g_a[0].weight.data.fill_(float("inf"))

    def run(self, recipe, tmp_path, plugins, monkeypatch, poison, record, **changes):
        from distillkit.training import train as trainer

        def prepare(*args):
            setup = original(*args)
            poison.codec = setup.codec
            return setup

        original = trainer.prepare
        monkeypatch.setattr(trainer, "prepare", prepare)
        r = recipe(on_divergence="rollback", log_every=1, **changes)
        return distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[record, poison])

    def test_it_goes_back_and_on_at_half_the_rate(self, recipe, tmp_path, plugins, monkeypatch):
        record = Record()
        constant = {"name": "adam", "learning_rate": 1e-3}
        schedule = {"name": "core.constant"}
        more = {"checkpoint_every": 2, "optimizer": constant, "schedule": schedule}
        self.run(recipe, tmp_path, plugins, monkeypatch, self.Poison(5, 2), record, **more)
        starts = [event for event in record.events if event[0] == "run_started"]
        assert [start[1] for start in starts] == [0, 4, 4]
        assert starts[1][3][-1].endswith("back to step 4, now at 0.5 times the recipe's learning rate")
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, 11))
        assert [line["learning_rate"] for line in lines] == [1e-3] * 4 + [2.5e-4] * 6
        assert load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["rate_factor"] == 0.25

    def test_before_the_first_checkpoint_it_goes_back_to_the_start(self, recipe, tmp_path, plugins, monkeypatch):
        record = Record()
        self.run(recipe, tmp_path, plugins, monkeypatch, self.Poison(1, 1), record)
        assert [event[1] for event in record.events if event[0] == "run_started"] == [0, 0]

    def test_not_for_ever(self, recipe, tmp_path, plugins, monkeypatch):
        record = Record()
        with pytest.raises(DivergedError, match="was not finite at step 1. The checkpoint after step 0 is kept"):
            self.run(recipe, tmp_path, plugins, monkeypatch, self.Poison(1, 100), record)
        assert len([event for event in record.events if event[0] == "run_started"]) == 6
