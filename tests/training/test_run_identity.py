"""A run is what it says it is: its images, its folder, its random numbers, its bytes, and where it comes from."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import distillkit
from distillkit.data.record import DataRecord
from distillkit.errors import TrainingError
from distillkit.testing.pytest_plugin import draw_photographs
from distillkit.training.distributed import Ranks
from distillkit.training.folder.checkpoint import list_checkpoints, save_checkpoint
from distillkit.training.folder.lock import NAME, only_here
from distillkit.training.folder.provenance import read_starts
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.random_state import random_state, restore_random_state
from distillkit.training.teaching.balance import buffers_kept

from .test_training import Interrupt, StopAfter

HOLD = "import sys, time; from pathlib import Path; from distillkit.training.folder.lock import only_here\n"
HOLD += "with only_here(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def plain(recipe, tmp_path):
    """A run of the student alone on photographs of its own."""
    (tmp_path / "photos").mkdir()
    draw_photographs(tmp_path / "photos")

    def build(**changes):
        data = {"train": tmp_path / "photos", "crop": 64, "batch_size": 1} | changes.pop("data", {})
        values = {"trains": "teacher", "num_steps": 4, "checkpoint_every": 2, "schedule": {"name": "core.constant"}}
        return recipe(**(values | {"data": data, "optimizer": {"name": "adam"}} | changes))

    return build


def interrupted(r, folder, plugins, step=2):
    with pytest.raises(Interrupt):
        distillkit.train(r, folder, plugins=plugins, observers=[StopAfter(step)])


class TestImages:
    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda photos: (photos / "0.png").write_bytes((photos / "1.png").read_bytes()), r"1 changed \(0\.png\)"),
            (lambda photos: (photos / "2.png").unlink(), r"1 removed \(2\.png\)"),
            (
                lambda photos: [shutil.copy(photos / "1.png", photos / f"{number}.png") for number in range(3, 8)],
                r"5 added \(3\.png, 4\.png, 5\.png, \.\.\.\)",
            ),
            (lambda photos: os.utime(photos / "1.png", (1, 1)), r"1 changed \(1\.png\)"),
        ],
    )
    def test_other_images_end_a_run_that_continues(self, plain, tmp_path, plugins, change, what):
        interrupted(plain(), tmp_path / "run", plugins)
        change(tmp_path / "photos")
        with pytest.raises(TrainingError, match=rf"not those with which the run began: {what}\. Bring them back"):
            distillkit.train(plain(), tmp_path / "run", plugins=plugins)

    def test_hashes_make_dates_irrelevant_and_contents_count(self, plain, tmp_path, plugins):
        r = plain(data={"hashes": True})
        interrupted(r, tmp_path / "run", plugins)
        photo = tmp_path / "photos" / "1.png"
        os.utime(photo, (1, 1))
        interrupted(r, tmp_path / "run", plugins, step=4)
        status, data = photo.stat(), bytearray(photo.read_bytes())
        data[-1] ^= 1  # of the last chunk's checksum, which Pillow does not look at: size and date stay
        photo.write_bytes(data)
        os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
        (tmp_path / "run" / "model.safetensors").unlink(missing_ok=True)
        with pytest.raises(TrainingError, match=r"1 changed \(1\.png\)"):
            distillkit.train(r, tmp_path / "run", plugins=plugins)

    def test_an_image_in_a_shard(self, photographs, tmp_path):
        from distillkit.data.shards import list_training_images, pack

        pack(photographs, tmp_path / "shards", num_workers=1)
        before = DataRecord.of(list_training_images(tmp_path / "shards")[0], tmp_path / "shards")
        assert list(before.files) == ["shard-000000.tar"]
        index = json.loads((tmp_path / "shards" / "index.json").read_text())
        index["images"].pop()
        (tmp_path / "shards" / "index.json").write_text(json.dumps(index))
        now = DataRecord.of(list_training_images(tmp_path / "shards")[0], tmp_path / "shards")
        assert before.changes(now) == "1 changed (shard-000000.tar)"
        assert before.digest != now.digest

    def test_a_run_of_an_earlier_version_and_a_damaged_record(self, plain, tmp_path, plugins):
        interrupted(plain(), tmp_path / "run", plugins)
        (tmp_path / "run" / "data.json").write_text("[" * 100_000)
        with pytest.raises(TrainingError, match=r"data\.json: damaged \(\w+\); remove it"):
            distillkit.train(plain(), tmp_path / "run", plugins=plugins)
        (tmp_path / "run" / "data.json").unlink()
        distillkit.train(plain(), tmp_path / "run", plugins=plugins)
        assert DataRecord.load(tmp_path / "run" / "data.json").files.keys() == {"0.png", "1.png", "2.png"}


class TestLock:
    def test_a_second_program_is_refused_at_once_and_a_killed_one_keeps_nobody_out(self, plain, tmp_path, plugins):
        folder = tmp_path / "run"
        holder = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
        with holder.stdout:
            assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match=r"run folder .*run: another process trains in it; wait"):
            distillkit.train(plain(num_steps=1), folder, plugins=plugins)
        assert [path.name for path in folder.iterdir()] == [NAME]
        holder.kill()
        holder.wait()
        assert distillkit.train(plain(num_steps=1), folder, plugins=plugins).is_file()

    def test_a_thread_and_an_observer_are_refused_too(self, plain, tmp_path, plugins):
        refused = []

        class Again:
            @distillkit.hookimpl
            def run_started(self, run):
                try:
                    distillkit.train(plain(num_steps=1), tmp_path / "run", plugins=plugins)
                except TrainingError as error:
                    refused.append(str(error))

        distillkit.train(plain(num_steps=1), tmp_path / "run", plugins=plugins, observers=[Again()])
        assert len(refused) == 1
        with only_here(tmp_path / "run"):
            pass

    def test_a_folder_of_other_files_gets_no_lock(self, plain, tmp_path, plugins):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("mine")
        with pytest.raises(TrainingError, match="it holds other files"):
            distillkit.train(plain(), tmp_path / "mine", plugins=plugins)
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_users_own_files_are_no_checkpoints(tmp_path):
    for name in ("step-good.safetensors", "step-1.safetensors", "step-00000009-copy.safetensors"):
        (tmp_path / name).write_bytes(b"mine")
    for step in (5, 10, 99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step, {})
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-99999999.safetensors", "step-100000000.safetensors"]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_with_a_date_for_a_step_is_a_users(tmp_path):
    run = RunFolder(tmp_path)
    for step in (5, 10, 15, 20):
        path = save_checkpoint(run.checkpoints, step, {"step": step})
        if step == 5:
            mine = path.with_name("step-20261128.safetensors")
            shutil.copy(path, mine)
    names = [path.name for path in list_checkpoints(run.checkpoints)]
    assert names == ["step-00000015.safetensors", "step-00000020.safetensors", mine.name]
    state, notes = run.newest_state()
    assert state == {"step": 20}
    assert len(notes) == 1
    assert "step-20261128.safetensors: it is left alone, for it holds step 5" in notes[0]


def test_every_generator_comes_back():
    def draw():
        return random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), torch.rand(2)

    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    draw()
    state = {"step": 0} | random_state(Ranks("cpu"))
    expected = draw()
    draw()
    restore_random_state(state, Ranks("cpu"), 0)
    got = draw()
    assert got[:4] == expected[:4]
    assert torch.equal(got[4], expected[4])


def test_a_checkpoint_holds_them(plain, tmp_path, plugins):
    class Draws:
        def __init__(self):
            self.drawn = {}

        @distillkit.hookimpl
        def phase_started(self, step):
            self.drawn[step] = (random.random(), float(np.random.rand()))

    interrupted(plain(), tmp_path / "run", plugins)
    from distillkit.training.folder.checkpoint import load_checkpoint

    state = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    restore_random_state(state, Ranks("cpu"), 0)
    assert random.getstate() == state["host_rng"][0]
    assert np.random.get_state()[1].tolist() == state["host_rng"][1][1]


def test_equal_runs_give_equal_bytes_and_equal_metrics(plain, tmp_path, plugins):
    r = plain(num_steps=6, log_every=4)
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    for step in (2, 4):
        interrupted(r, tmp_path / "parts", plugins, step)
    parts = distillkit.train(r, tmp_path / "parts", plugins=plugins)
    assert parts.read_bytes() == whole.read_bytes()

    def lines(folder):
        found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in found]

    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "whole")] == [4, 6]
    assert len(read_starts(tmp_path / "parts")) == 3


@pytest.mark.slow
def test_metadata_stand_in_one_order_in_every_process(tmp_path):
    write = "import sys, torch; from pathlib import Path; from distillkit.model.tensors import write_tensors\n"
    write += "write_tensors(Path(sys.argv[1]), {'a': torch.ones(3)}, {k: k for k in 'qwertzuiop'})"
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for file in files:
        subprocess.run([sys.executable, "-W", "ignore", "-c", write, file], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()
    with safe_open(files[0], framework="pt") as file:
        assert torch.equal(file.get_tensor("a"), torch.ones(3))


def test_a_look_at_gradients_is_no_step_of_batchnorm():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with buffers_kept(module):
        module(torch.rand(2, 3, 8, 8)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_where_a_run_comes_from(plain, tmp_path, plugins):
    file = distillkit.train(plain(num_steps=1), tmp_path / "run", plugins=plugins)
    (start,) = read_starts(tmp_path / "run")
    data = DataRecord.load(tmp_path / "run" / "data.json")
    assert start["versions"]["torch"] == metadata.version("torch")
    assert start["data"] == data.digest
    assert all(start[key] for key in ("command", "host", "system", "began"))
    assert (start["device"], start["processes"]) == ("cpu", 1)
    assert start["start_step"] == 0
    with safe_open(file, framework="pt") as opened:
        kept = json.loads(opened.metadata()["provenance"])
    assert kept == {key: start[key] for key in ("versions", "commit", "data")}
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert kept["commit"].rstrip("+") == head.stdout.strip()


@pytest.mark.parametrize("command", ["demo", "family", "evaluate", "compress", "report", "plugins"])
def test_commands_for_one_process_are_refused_in_several(monkeypatch, command):
    from typer.testing import CliRunner

    from distillkit.cli.app import app

    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(app, [command, *(["x"] if command not in ("demo", "plugins") else [])])
    assert isinstance(done.exception, TrainingError)
    assert str(done.exception).startswith(f"distillkit {command}: expected one process, got 2")


def test_a_family_and_a_comparison_in_python_are_refused_too(plain, tmp_path, monkeypatch):
    from distillkit.family.run import run_family

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="^family: expected one process"):
        run_family(None, tmp_path)
    with pytest.raises(TrainingError, match="^distil: expected one process"):
        distillkit.distil_recipes(tmp_path, plain(), tmp_path, [])
