"""The whole job: teacher, control and student, on real files."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

import distillkit
from distillkit.errors import RecipeError


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


def test_the_job(recipes, photographs, tmp_path, plugins):
    images = sorted(photographs.iterdir())[:2]
    seen = []

    class Observer:
        @distillkit.hookimpl
        def run_finished(self, run):
            seen.append((run.name, run.recipe.losses.keys(), run.recipe.teacher, run.recipe.seed))

    comparison = distillkit.distil(*recipes, tmp_path / "job", images, plugins=plugins, observers=lambda: [Observer()])
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
    distillkit.distil(*recipes, tmp_path / "job", images, plugins=plugins, observers=lambda: [Observer()])
    assert seen == []  # all three are done


@pytest.mark.slow
def test_a_trained_teacher_may_be_handed_over(recipes, photographs, tmp_path, plugins):
    teacher = distillkit.train(recipes[0], tmp_path / "mine", plugins=plugins)
    images = sorted(photographs.iterdir())[:1]
    distillkit.distil(teacher, recipes[1], tmp_path / "job", images, plugins=plugins, observers=list)
    assert not (tmp_path / "job" / "teacher").exists()


def test_without_losses_there_is_nothing_to_distil(recipes, photographs, tmp_path, plugins):
    with pytest.raises(RecipeError, match="expected losses to distil with"):
        distillkit.distil(recipes[0], recipes[0], tmp_path, sorted(photographs.iterdir()), plugins=plugins)
