"""`distillkit train` as a user meets it: what it shows, values from the command line, paths, a run that is done."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import distillkit
from distillkit.cli.app import app
from distillkit.model.complexity import kmac_per_pixel, num_parameters

RECIPE = """
trains = "teacher"
num_steps = 4
log_every = 2
device = "cpu"
pair = { name = "models.lowres", size = "tiny" }
data = { train = "photos", crop = 64, batch_size = 2 }
validation = { data = "held-out", every = 2, crops = 2 }
"""
STUDENT = f"""{RECIPE.replace('trains = "teacher"', 'teacher = "runs/teacher/model.safetensors"')}
schedule = {{ name = "feds.staged" }}
losses = {{ "feds.alignment" = {{}} }}
"""


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Return stdout and stderr of a command that ends with a code, or the message of bad input."""
    if code == 2:
        with pytest.raises(distillkit.DistillkitError) as told:
            CliRunner().invoke(app, arguments, catch_exceptions=False)
        return "", str(told.value)
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory, photographs, held_out) -> Path:
    """A folder with a recipe in a subfolder, and the run of its teacher."""
    folder = tmp_path_factory.mktemp("work") / "job"
    folder.mkdir()
    (folder / "photos").symlink_to(photographs)
    (folder / "held-out").symlink_to(held_out)
    (folder / "teacher.toml").write_text(RECIPE)
    (folder / "student.toml").write_text(STUDENT)
    return folder


@pytest.fixture(scope="module")
def teacher(work) -> tuple[Path, str]:
    """The teacher's run, from another folder than its own; and what it showed."""
    out, shown = run("train", str(work / "teacher"))  # the suffix is added
    assert out == f"Trained model: {work / 'runs/teacher/model.safetensors'}\n"
    return work / "runs/teacher", shown


def test_the_header_is_true(work, teacher):
    out, shown = run("train", str(work / "student.toml"), "--set", "pair.size=tiny")
    header = dict(re.findall(r"^  (\w+(?: \w+)?)\s+(.*)$", shown, re.MULTILINE))
    model = distillkit.load_model(work / "runs/student")
    assert header["student"].startswith(
        f"models.lowres (size=tiny): {num_parameters(model.codec.module) / 1e6:.3g} M parameters, "
    )
    for part, run_folder in (("student", work / "runs/student"), ("teacher", work / "runs/teacher")):
        counted = float(re.search(r"([\d.]+) kMAC/pixel", header[part])[1])
        there = kmac_per_pixel(distillkit.load_model(run_folder).codec)
        assert counted == pytest.approx(there, rel=0.3)  # at another size of picture
    assert header["teacher"].startswith(str(work / "runs/teacher/model.safetensors"))
    assert header["pictures"] == f"3 pictures in {(work / 'photos').resolve()}; each step sees 2 crops of 64x64"
    assert re.fullmatch(r"\d+ matched: .*latent.*", header["taps"])
    assert header["losses"] == "feds.alignment"
    assert header["schedule"].endswith("; 4 steps in all")
    assert header["writes to"] == str(work / "runs/student")
    assert header["device"].startswith("cpu, ")


def test_losses_and_validation_are_in_the_progress(work, teacher):
    _, shown = run("train", str(work / "student.toml"), "--out", "runs/shown")
    lines = [line for line in shown.splitlines() if "  step " in line]
    assert "feds.alignment " in lines[0]
    assert "RD cost " in lines[0]
    assert "held out: " in shown
    assert "  held out " in lines[-2]  # the newest validation beside later figures


def test_a_finished_run_is_already_done(work, teacher):
    before = {path: path.read_bytes() for path in teacher[0].rglob("*") if path.is_file()}
    for command in (["train", str(work / "teacher.toml")], ["resume", str(teacher[0])]):
        out, shown = run(*command)
        assert out == f"Already done: {teacher[0] / 'model.safetensors'}\n"
        assert shown == ""
    assert {path: path.read_bytes() for path in teacher[0].rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("arguments", [("-q", "train"), ("train", "-q")])
def test_quiet(work, arguments, tmp_path):
    out, shown = run(*arguments, str(work / "teacher.toml"), "--out", str(tmp_path / "run"), "--set", "num_steps=1")
    assert out == f"Trained model: {tmp_path / 'run/model.safetensors'}\n"
    assert shown == ""


def test_values_from_the_command_line(work, tmp_path):
    changes = [
        "num_steps=2",
        "optimizer.learning_rate=1e-3",
        "optimizer.name=adamw",
        'optimizer.rate_schedule={name = "step", at = [1]}',
        "data.batch_size=1",
        'data.train="photos"',  # from the recipe's folder
        "losses={}",
    ]
    run("train", str(work / "teacher.toml"), "--out", str(tmp_path), *[part for c in changes for part in ("--set", c)])
    recipe = tomllib.loads((tmp_path / "recipe.toml").read_text())
    assert recipe["num_steps"] == 2
    assert recipe["optimizer"]["learning_rate"] == 1e-3
    assert recipe["optimizer"]["name"] == "core.adamw"
    assert recipe["optimizer"]["rate_schedule"]["at"] == [1]
    assert recipe["data"]["batch_size"] == 1
    assert recipe["data"]["train"] == str((work / "photos").resolve())


def test_wrong_values_from_the_command_line(work, tmp_path):
    def said(*changes: str) -> str:
        arguments = [part for change in changes for part in ("--set", change)]
        return run("train", str(work / "student.toml"), "--out", str(tmp_path / "no"), *arguments, code=2)[1]

    assert said("num_stepz=5") == (
        "recipe student.toml --set num_stepz: num_stepz: unknown key. Did you mean 'num_steps'?"
    )
    assert "optimizer: learning_rat: unknown key. Did you mean 'learning_rate'?" in said("optimizer.learning_rat=1")
    assert "pair: sise: unknown key. Did you mean 'size'?" in said("pair.sise=tiny")
    assert "positionz: unknown key. Did you mean 'positions'?" in said("losses.feds.alignment.positionz=1")
    assert "--set num_steps: num_steps: " in said("num_steps=many")
    assert said("num_steps") == "--set num_steps: expected KEY=VALUE, as in `optimizer.learning_rate=1e-3`; correct it."
    assert "expected a table at num_steps, got 4" in said("num_steps.more=1")
    assert not (tmp_path / "no").exists()


def test_paths_start_from_the_recipes_folder(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lost.toml").write_text(STUDENT.replace("photos", "photoz"))
    told = run("train", "lost.toml", code=2)[1]
    assert told.startswith(f"recipe lost.toml: data.train: expected a file or folder, got nothing at {tmp_path}/photoz")
    assert f"Relative paths in a recipe, and --out, start from the recipe's folder, {tmp_path}." in told
    (tmp_path / "photoz").mkdir()
    (tmp_path / "held-out").mkdir()
    assert "teacher: expected a file or folder" in (told := run("train", "lost.toml", code=2)[1])
    assert "train the teacher first" in told
    out, _ = run("train", str(work / "teacher.toml"), "--out", "elsewhere/run", "--set", "num_steps=1", "-q")
    assert out == f"Trained model: {work / 'elsewhere/run/model.safetensors'}\n"


def test_cite_and_report_name_themselves(tmp_path):
    for command in ("cite", "report"):
        for path in (tmp_path, tmp_path / "nowhere"):
            assert run(command, str(path), code=2)[1].startswith(f"{command} {path}: expected a r")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/recipe.toml").write_text("num_steps = 1")
    for command in ("cite", "report"):
        assert run(command, str(tmp_path), code=2)[1].startswith(f"{command} {tmp_path}: run broken: recipe")


def test_suffixes_are_added_or_explained(work, teacher, tmp_path):
    run("export", str(teacher[0]), str(tmp_path / "model"))
    assert (tmp_path / "model.safetensors").is_file()
    told = run("export", str(teacher[0]), str(tmp_path / "model.onnx"), code=2)[1]
    assert "ends in .safetensors, got model.onnx" in told
    told = run("export", str(teacher[0]), str(tmp_path / "model.onnx"), "--to", "onnx", code=2)[1]
    assert "expected the name of a folder" in told
    assert "ends in .html, got page.pdf" in run("report", str(teacher[0]), "-o", str(tmp_path / "page.pdf"), code=2)[1]


def test_what_is_decompressed_needs_no_suffix(work, teacher, tmp_path):
    (picture, *_) = sorted((work / "photos").iterdir())
    run("compress", str(picture), str(tmp_path / "a"), "--model", str(teacher[0]), "-q")
    out, shown = run("decompress", str(tmp_path / "a"), str(tmp_path / "b"), "--model", str(teacher[0]), "-q", "--json")
    assert shown == ""
    assert str(tmp_path / "b.png") in out


@pytest.mark.slow
def test_measuring_shows_where_it_is_unless_quiet(work, teacher, tmp_path):
    arguments = ("evaluate", str(teacher[0]), "--data", str(work / "held-out"), "--out", str(tmp_path / "measured"))
    assert run(*arguments, "--json")[1] == "measuring teacher\n"
    shown = run("compare", str(teacher[0]), *arguments[2:], "--json", "-q")[1]
    assert shown == ""
