"""The command line as a user meets it: real runs, bad input without a traceback.

A process costs seconds of imports, so commands run in this one, but for those that signals stop.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillkit.cli.app import app, main
from distillkit.hooks import loader
from distillkit.model.tensors import read_tensors

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
PROGRAM = [sys.executable, "-W", "error", "-m", "distillkit"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}

TEACHER = """
trains = "teacher"
num_steps = 12
pair = { name = "models.cheng2020" }
data = { train = "pictures", crop = 64, batch_size = 1 }
device = "cpu"
log_every = 2
checkpoint_every = 1
"""

STUDENT = """
num_steps = 5
teacher = "teacher/model.safetensors"
log_every = 1

[pair]
name = "models.cheng2020"

[losses."feds.alignment"]
[losses."feds.channel_entropy"]
calibration_crops = 2

[schedule]
name = "feds.staged"

[data]
train = "pictures"
crop = 64
batch_size = 2
"""


def distillkit(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        for name in ("COLUMNS", "NO_COLOR"):
            patch.setenv(name, ENVIRONMENT[name])
        patch.setattr(sys, "argv", ["distillkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(arguments, ended.value.code or 0, out.getvalue(), err.getvalue())


def succeed(*arguments: str | Path, cwd: Path) -> str:
    done = distillkit(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fail(*arguments: str | Path, cwd: Path) -> str:
    """Return the one message of a command that cannot work."""
    done = distillkit(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("distillkit: error: ")
    assert done.stderr.count("error:") == 1
    assert done.stdout == ""
    return done.stderr.removeprefix("distillkit: error: ").rstrip("\n")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with pictures and recipes."""
    folder = tmp_path_factory.mktemp("work")
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:96, 0:80]
    for name, number in (("pictures/a", 0), ("pictures/b", 1), ("test/c", 2)):
        slope = np.stack([(x * 2 + 60 * number) % 256, (y * 2) % 256, (x + y) % 256], axis=2)
        noise = generator.integers(-20, 20, slope.shape)
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray((slope + noise).clip(0, 255).astype(np.uint8)[:70]).save(folder / f"{name}.png")
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "student.toml").write_text(STUDENT)
    return folder


@pytest.fixture(scope="module")
def teacher(work) -> Path:
    """A run that was stopped by Ctrl-C after its first checkpoint, then taken up again and finished."""
    run = work / "teacher"
    command = [*PROGRAM, "train", "teacher.toml", "--out", "teacher"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=work, env=ENVIRONMENT, **pipes) as process:
        deadline = time.monotonic() + 100
        while not (run / "checkpoints/step-00000001.safetensors").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=100)[1]
    assert process.returncode == 130, stderr
    assert "stopped. To continue, give the same command, or `distillkit resume RUN`." in stderr
    assert "Traceback" not in stderr
    assert not (run / "model.safetensors").exists()
    assert f"{run / 'model.safetensors'}" in succeed("resume", "teacher", cwd=work)
    return run


@pytest.fixture(scope="module")
def student(work, teacher) -> Path:
    succeed("train", "student.toml", cwd=work)
    return work / "runs" / "student"


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command, tmp_path):
    text = succeed(*([command] if command else []), "--help", cwd=tmp_path)
    assert "Usage: " in text
    if command is None:
        assert all(f" {name} " in text for name in COMMANDS)


def test_plugins(tmp_path):
    content = json.loads(succeed("plugins", "--json", cwd=tmp_path))
    assert {plugin["name"] for plugin in content["plugins"]} >= {"core", "feds", "models"}
    components = {row["name"]: row for row in content["components"]}
    assert components.keys() >= {
        "core.constant",
        "feds.alignment",
        "feds.channel_entropy",
        "feds.staged",
        "models.by_resolution",
        "models.cheng2020",
    }
    assert components["feds.staged"]["kind"] == "schedule"
    assert all(row["summary"] for row in components.values())


def test_a_table_of_pairs(tmp_path, monkeypatch, plugins):
    pairs = {"small.pair": plugins.get("pair", "small.pair", "test")}
    two = replace(plugins, components=plugins.components | {"pair": pairs})
    monkeypatch.setattr(loader, "load_plugins", lambda: two)
    text = succeed("pairs", cwd=tmp_path)
    assert "small.pair teacher" in text
    assert "small.pair student" in text


@pytest.mark.slow
def test_all_shipped_pairs(tmp_path):
    rows = json.loads(succeed("pairs", "--json", cwd=tmp_path))
    assert all(sum(row["parameters_by_part"].values()) == row["num_parameters"] for row in rows)
    sizes = {
        (row["options"]["size"], row["part"]): row["num_parameters"]
        for row in rows
        if row["pair"] == "models.cheng2020"
    }
    assert len(sizes) == 6
    for size in ("tiny", "lite", "paper"):
        assert sizes[size, "student"] < 0.4 * sizes[size, "teacher"]
    assert all(row["kmac_per_pixel"] > 0 for row in rows)


class TestBadInput:
    def test_no_images(self, work):
        (work / "empty").mkdir(exist_ok=True)
        (work / "no-images.toml").write_text(TEACHER.replace("pictures", "empty"))
        assert fail("train", "no-images.toml", cwd=work).startswith(f"images {work / 'empty'}: expected files that end")

    def test_missing_recipe(self, work):
        told = fail("train", "nowhere.toml", cwd=work)
        assert told == "recipe nowhere.toml: cannot be read: No such file or directory; check the path."

    def test_misspelt_key(self, work):
        (work / "misspelt.toml").write_text(TEACHER.replace("num_steps", "num_stepz"))
        lines = fail("train", "misspelt.toml", cwd=work).splitlines()
        assert lines == [
            "recipe misspelt.toml: num_steps: missing; add it to the recipe.",
            "recipe misspelt.toml: num_stepz: unknown key. Did you mean 'num_steps'?",
        ]

    def test_resume_of_a_folder_that_is_no_run(self, work):
        assert "run folder pictures: expected a run's folder" in fail("resume", "pictures", cwd=work)

    def test_evaluate_what_is_no_model(self, work):
        assert "pictures/a.png: cannot be read" in fail("evaluate", "pictures/a.png", "--data", "test", cwd=work)
        assert not (work / "runs" / "evaluation" / "comparison.json").exists()

    def test_usage(self, work):
        done = distillkit("train", "--no-such-option", cwd=work)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "--no-such-option" in done.stderr


def test_interrupted_and_resumed_run(teacher):
    assert {path.name for path in teacher.iterdir()} == {
        ".lock",
        "recipe.toml",
        "data.json",
        "provenance.jsonl",
        "metrics.jsonl",
        "checkpoints",
        "model.safetensors",
    }
    steps = [line["step"] for line in metrics(teacher)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
    names = [path.name for path in sorted((teacher / "checkpoints").iterdir())]
    assert names == ["step-00000011.safetensors", "step-00000012.safetensors"]
    recipe = tomllib.loads((teacher / "recipe.toml").read_text())
    assert recipe["pair"] == {"name": "models.cheng2020", "size": "tiny"}
    assert Path(recipe["data"]["train"]) == teacher.parent / "pictures"


def test_student_run(student):
    assert {path.name for path in student.iterdir()} == {
        ".lock",
        "recipe.toml",
        "data.json",
        "provenance.jsonl",
        "metrics.jsonl",
        "checkpoints",
        "calibration",
        "model.safetensors",
    }
    lines = metrics(student)
    assert [(line["step"], line["phase"]) for line in lines] == [
        (1, "align"),
        (2, "align"),
        (3, "channel"),
        (4, "channel"),
        (5, "finetune"),
    ]
    active = [sorted(key for key in line if key.startswith("loss/")) for line in lines]
    both = ["loss/feds.alignment", "loss/feds.channel_entropy"]
    assert active == [both[:1], both[:1], both, both[1:], []]
    record = json.loads((student / "calibration/feds.channel_entropy.json").read_text())
    assert len(record["record"]["bits_per_pixel"]) == 64
    tensors, metadata = read_tensors(student / "model.safetensors")
    about = json.loads(metadata["model"])
    assert (about["part"], about["lmbda"]) == ("student", 0.013)
    assert not [name for name in tensors if "adapter" in name]


def test_evaluate(work, teacher, student):
    arguments = ["evaluate", "teacher", student / "model.safetensors", "--data", "test", "--out", "measured"]
    rows = json.loads(succeed(*arguments, "--json", cwd=work))
    assert [row["name"] for row in rows] == ["teacher", "student"]
    for row in rows:
        (image,) = row["images"]
        size = (work / "measured" / row["name"] / "c.dk").stat().st_size
        assert image["file_bytes"] == size
        assert image["rate_bpp"] == pytest.approx(size * 8 / (70 * 80))
        with Image.open(work / "measured" / row["name"] / "c.png") as decoded:
            assert decoded.size == (80, 70)
    assert (work / "measured" / "comparison.png").is_file()


def test_resume_of_a_finished_run_changes_nothing(work, student):
    before = {path: path.read_bytes() for path in student.rglob("*") if path.is_file()}
    assert str(student / "model.safetensors") in succeed("resume", student, cwd=work)
    assert {path: path.read_bytes() for path in student.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_sigterm_ends_a_command_with_143_and_a_checkpoint(work):
    (work / "preempted.toml").write_text(TEACHER.replace("num_steps = 12", "num_steps = 2000"))
    process = subprocess.Popen(
        [*PROGRAM, "train", "preempted.toml"], cwd=work, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    metrics = work / "runs" / "preempted" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    (step,) = re.findall(r"stopped after step (\d+) of 2000, and saved. Give the same command again to continue.", told)
    assert (work / "runs" / "preempted" / "checkpoints" / f"step-{int(step):08d}.safetensors").is_file()
