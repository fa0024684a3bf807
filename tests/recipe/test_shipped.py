"""The recipes that ship are recipes, one set for each pair and size; the largest take a step, save it and go on."""

from __future__ import annotations

import json

import pytest

import distillkit
from distillkit.errors import RecipeError
from distillkit.recipe.shipped import load_shipped, shipped_recipes, write_shipped
from distillkit.training.setup.resolve import resolve

PLUGINS = distillkit.load_plugins()
NAMES = list(shipped_recipes())


def test_every_pair_has_every_size():
    listed = {name for name, pair in PLUGINS.components["pair"].items() if pair.examples()}  # others need a codec
    pairs = {name.removeprefix("models.") for name in listed if name.startswith("models.")}
    sets = {f"{pair}-{size}" for pair in pairs for size in ("tiny", "lite", "paper")}
    assert set(NAMES) == sets | {"prim-tiny", "prim-paper"}


@pytest.mark.parametrize("name", NAMES)
def test_they_are_valid_as_written(name, tmp_path):
    (tmp_path / "photos").mkdir()
    for path in write_shipped(name, tmp_path):
        recipe = resolve(distillkit.Recipe.load(path), PLUGINS)
        assert recipe.trains == path.stem.partition("-")[0]
        assert recipe.pair.name == f"models.{name.rpartition('-')[0].replace('prim', 'compressai')}"
        assert recipe.lmbda == {"teacher": 0.025, "teacher-rate": 0.0035}.get(
            path.stem if "prim" in name else "", 0.013
        )
        if recipe.trains == "student" and name not in ("compressai-paper", "prim-paper"):
            teachers = [recipe.teacher] if recipe.teacher else list(recipe.teachers.values())
            assert teachers[0] == tmp_path / "runs" / "teacher" / "model.safetensors"
    with pytest.raises(RecipeError, match="expected a folder without teacher.toml|without student.toml"):
        write_shipped(name, tmp_path)


def test_unknown_name(tmp_path):
    with pytest.raises(RecipeError, match="no 'cheng2020-tinny' ships. Did you mean 'cheng2020-tiny'?"):
        write_shipped("cheng2020-tinny", tmp_path)
    with pytest.raises(RecipeError, match="There are cheng2020-lite, "):
        write_shipped("x", tmp_path)


class Interrupted(BaseException):
    pass


class InterruptAfterOneStep:
    @distillkit.hookimpl
    def checkpoint_saved(self, step):
        if step == 1:
            raise Interrupted


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute in all where nothing else runs; five gigabytes of memory
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-paper")])
def test_paper_scale_dry_run(name, photographs, tmp_path):
    """Build, probe, one step at a small crop, checkpoint, and resume for another."""
    shipped = load_shipped(name, "student", photographs)
    losses = dict(shipped.losses)
    if "feds.channel_entropy" in losses:
        losses["feds.channel_entropy"] = {"calibration_crops": 1}
    options = {**shipped.pair.options}
    if "teacher" in options:  # would be downloaded
        options["teacher"] = {**options["teacher"], "pretrained": False}
    common = {
        "pair": {"name": shipped.pair.name, **options},
        "data": {"train": photographs, "crop": 64, "batch_size": 1},
        "optimizer": shipped.optimizer.model_dump(),
        "log_every": 1,
        "checkpoint_every": 1,
        "device": "cpu",
        "precision": "fp32",
    }
    teacher = distillkit.Recipe.create(**common, trains="teacher", num_steps=1)
    model = distillkit.train(teacher, tmp_path / "teacher", plugins=PLUGINS)
    schedule = {"name": shipped.schedule.name, **shipped.schedule.options}
    student = distillkit.Recipe.create(**common, num_steps=2, teacher=model, losses=losses, schedule=schedule)
    with pytest.raises(Interrupted):
        distillkit.train(student, tmp_path / "student", plugins=PLUGINS, observers=[InterruptAfterOneStep()])
    model = distillkit.train(student, tmp_path / "student", plugins=PLUGINS)
    steps = [json.loads(line)["step"] for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    assert distillkit.load_model(model).pair == shipped.pair.name
