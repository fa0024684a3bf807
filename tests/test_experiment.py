"""The whole job: teacher, control and student, on real files."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import distillkit
from distillkit.errors import RecipeError
from distillkit.experiment import Seeds, repeat_with_seeds
from distillkit.recipe.shipped import load_for_pair, load_shipped
from distillkit.training.display.screens import duration


@pytest.fixture
def recipes(photographs):
    common = {
        "pair": {"name": "small.pair"},
        "num_steps": 5,
        "data": {"train": photographs, "crop": 64, "batch_size": 2},
        "device": "cpu",
    }
    teacher = distillkit.Recipe.create(trains="teacher", **common)
    student = distillkit.Recipe.create(
        losses={"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}},
        schedule={"name": "feds.staged"},
        **common,
    )
    return teacher, student


@pytest.mark.slow
def test_the_job(recipes, photographs, tmp_path, plugins):
    images = sorted(photographs.iterdir())[:2]
    seen = []

    class Observer:
        @distillkit.hookimpl
        def run_finished(self, run):
            seen.append((run.name, run.recipe.losses.keys(), run.recipe.teacher, run.recipe.seed))

    comparison = distillkit.distil_recipes(
        *recipes, tmp_path / "job", images, plugins=plugins, observers=lambda: [Observer()]
    )
    assert [name for name, *_ in seen] == ["teacher", "control", "student"]
    assert not seen[1][1]
    assert seen[1][2] is None
    assert seen[2][1] == {"feds.alignment", "feds.channel_entropy"}
    assert seen[2][2] == tmp_path / "job" / "teacher" / "model.safetensors"

    rows = json.loads((tmp_path / "job" / "comparison" / "comparison.json").read_text())
    assert [row["name"] for row in rows] == ["teacher", "control", "student"]
    assert rows[0]["num_parameters"] > rows[1]["num_parameters"] == rows[2]["num_parameters"]
    assert rows[0]["kmac_per_pixel"] > rows[1]["kmac_per_pixel"] == rows[2]["kmac_per_pixel"]
    for row in rows:
        for image in row["images"]:
            file = tmp_path / "job" / "comparison" / row["name"] / f"{image['name']}.dk"
            assert image["rate_bpp"] == pytest.approx(8 * file.stat().st_size / (96 * 128))
            assert distillkit.read_image(file.with_suffix(".png")).shape == (96, 128, 3)
    sheet = distillkit.read_image(tmp_path / "job" / "comparison" / "comparison.png")
    assert sheet.shape[1] > 4 * 400  # the original and three models
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(comparison.table())
    text = console.export_text()
    assert all(word in text for word in ("teacher", "control", "student", "RD", "2 held-out"))

    seen.clear()
    distillkit.distil_recipes(*recipes, tmp_path / "job", images, plugins=plugins, observers=lambda: [Observer()])
    assert seen == []  # all three are done

    def quiet():
        return []

    student = recipes[1]
    seeds = repeat_with_seeds(comparison, student, images, 2, plugins=plugins, observers=quiet)
    first = {model.name: model.evaluation.averages["rd_cost"] for model in comparison.models}
    assert (seeds.control[0], seeds.student[0]) == (first["control"], first["student"])
    assert len(set(seeds.control)) == len(set(seeds.student)) == 2
    other = distillkit.Recipe.load(tmp_path / "job/seeds/student-1/recipe.toml")
    assert (other.seed, other.teacher) == (student.seed + 1, tmp_path / "job/teacher/model.safetensors")
    again = repeat_with_seeds(comparison, student, images, 2, plugins=plugins, observers=quiet)
    assert again == seeds  # trained once, measured to the same bytes


def test_the_spread_over_seeds_in_words():
    assert str(Seeds(control=(2.0, 4.0), student=(1.0, 3.0))) == (
        "RD cost over 2 seeds: control 3.000 (2.000 to 4.000), student 2.000 (1.000 to 3.000); distillation changes it "
        "by -37.5 % (-50.0 to -25.0)."
    )


@pytest.mark.slow
def test_a_trained_teacher_may_be_handed_over(recipes, photographs, tmp_path, plugins):
    teacher = distillkit.train(recipes[0], tmp_path / "mine", plugins=plugins)
    images = sorted(photographs.iterdir())[:1]
    distillkit.distil_recipes(teacher, recipes[1], tmp_path / "job", images, plugins=plugins, observers=list)
    assert not (tmp_path / "job" / "teacher").exists()


def test_without_losses_there_is_nothing_to_distil(recipes, photographs, tmp_path, plugins):
    with pytest.raises(RecipeError, match="expected losses to distil with"):
        distillkit.distil_recipes(recipes[0], recipes[0], tmp_path, sorted(photographs.iterdir()), plugins=plugins)


@pytest.fixture
def photos(photographs, held_out, tmp_path) -> Path:
    """Six pictures in one folder."""
    (tmp_path / "photos").mkdir()
    for number, path in enumerate([*sorted(photographs.iterdir()), *sorted(held_out.iterdir())]):
        (tmp_path / "photos" / f"{number}.png").symlink_to(path)
    return tmp_path / "photos"


CHANGES = {
    "data.crop": 64,
    "data.batch_size": 2,
    "data.convert": True,
    "device": "cpu",
    "num_steps": 20,
    "checkpoint_every": 10,
}


@pytest.mark.slow
def test_one_call(photos, tmp_path, plugins, monkeypatch):
    """A pair without recipes that ship, a grey picture; an estimate first; stopped, and continued by the same call."""
    grey = Image.open(photos / "0.png").convert("L")
    (photos / "0.png").unlink()
    grey.save(photos / "0.png")
    monkeypatch.setattr("distillkit.experiment._WORTH", 0)

    class Stop:
        @distillkit.hookimpl
        def checkpoint_saved(self, run, step):
            if run.name == "control":
                raise distillkit.TrainingStopped("enough")

    def call(**arguments) -> tuple[object, str]:
        console = Console(width=100, file=io.StringIO())
        arguments |= {"pair": "small.pair", "size": "tiny", "plugins": plugins, "console": console, "changes": CHANGES}
        try:
            return distillkit.distil(photos, tmp_path / "job", **arguments), console.file.getvalue()
        except distillkit.TrainingStopped as stopped:
            return stopped, console.file.getvalue()

    stopped, text = call(observers=lambda: [Stop()])
    assert isinstance(stopped, distillkit.TrainingStopped)
    estimate = json.loads((tmp_path / "job/estimate.json").read_text())
    assert set(estimate) == {"teacher", "control", "student"}
    assert f"Training takes about {duration(sum(estimate.values()))} on this machine" in text
    assert text.index("Training takes about") < text.index("teacher\n  device")

    done, text = call()
    left = estimate["control"] / 2 + estimate["student"]
    assert f"Training takes about {duration(left)} on this machine" in text
    assert "teacher" not in re.search(r"measured steps \((.*?)\)", text)[1]
    assert "continues after step 10" in text
    assert [model.name for model in done.comparison.models] == ["teacher", "control", "student"]
    assert done.model == tmp_path / "job/student/model.safetensors"
    assert done.page == tmp_path / "job/report.html"
    assert [image.name for image in done.comparison.models[0].evaluation.images] == ["0"]  # every tenth
    assert distillkit.load_model(done.model, plugins).part == "student"


@pytest.mark.slow
def test_one_call_with_a_trained_teacher(photos, tmp_path, plugins, teacher_file, monkeypatch):
    monkeypatch.setattr("distillkit.experiment._WORTH", 0)
    changes = CHANGES | {"num_steps": 4}
    options = {"pair": "small.pair", "size": "tiny", "plugins": plugins, "changes": changes}
    done = distillkit.distil(photos, tmp_path / "job", teacher=teacher_file, **options)
    assert [model.name for model in done.comparison.models] == ["teacher", "control", "student"]
    taken = distillkit.load_model(done.comparison.models[0].model, plugins)
    assert taken.fingerprint == distillkit.load_model(teacher_file, plugins).fingerprint
    assert "against the teacher" in done.page.read_text()
    assert json.loads((tmp_path / "job/estimate.json").read_text())["teacher"] == 0


@pytest.mark.slow
def test_a_teacher_of_another_pair_gives_no_initial_weights(photos, tmp_path, plugins, teacher_file):
    class Stop:
        @distillkit.hookimpl
        def run_started(self, run):
            if run.name == "student":
                raise distillkit.TrainingStopped(run.recipe.initial_weights)

    def start(teacher, folder, **changes):
        short = {"num_steps": 0, "data.crop": 64, "device": "cpu"} | {"losses": {"feds.alignment": {}}} | changes
        options = {"teacher": teacher, "changes": short, "plugins": plugins, "observers": lambda: [Stop()]}
        with pytest.raises(distillkit.TrainingStopped) as stopped:
            distillkit.distil(photos, tmp_path / folder, **options)
        return str(stopped.value)

    assert start("zoo:lite-teacher", "own") == "teacher"
    assert start(teacher_file, "other") == "random"
    assert start(teacher_file, "asked", initial_weights="teacher") == "teacher"


def test_the_recipes_of_one_call(plugins, tmp_path):
    ours = load_for_pair("models.cheng2020", "lite", "student", tmp_path, plugins)
    assert ours == load_shipped("cheng2020-lite", "student", tmp_path)
    other = load_for_pair("small.pair", "tiny", "teacher", tmp_path, plugins)
    assert (other.pair.name, other.trains, other.num_steps) == ("small.pair", "teacher", 1500)
    starts = [load_for_pair(pair, "lite", "student", tmp_path, plugins) for pair in ("models.lowres", "small.pair")]
    assert [recipe.initial_weights for recipe in starts] == ["teacher", "random"]
    with pytest.raises(RecipeError, match=r"Did you mean 'models.lowres'"):
        load_for_pair("models.lowress", "tiny", "teacher", tmp_path, plugins)
    with pytest.raises(RecipeError, match="write its recipe with `distillkit recipes compressai-paper`"):
        load_for_pair("models.compressai", "paper", "teacher", tmp_path, plugins)


def test_bad_input_of_one_call_leaves_nothing(photos, tmp_path, plugins):
    for changes, told in (({"num_stepz": 3}, "Did you mean 'num_steps'"), ({"optimizer.momentun": 0}, "unknown key")):
        with pytest.raises(RecipeError, match=told):
            distillkit.distil(photos, tmp_path / "job", size="tiny", changes=changes, plugins=plugins)
    with pytest.raises(distillkit.DistillkitError, match="expected a folder, got nothing there"):
        distillkit.distil(tmp_path / "nowhere", tmp_path / "job", size="tiny", plugins=plugins)
    assert not (tmp_path / "job").exists()
