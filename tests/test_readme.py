"""What the README shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distillkit
from distillkit import testing

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def run(code):
    scope = {"__name__": "mine"}
    exec(compile(code, "README.md", "exec"), scope)
    return scope


@pytest.fixture
def here(tmp_path, monkeypatch, photographs):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        picture = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def test_the_two_recipes_train_and_the_student_codes_a_picture(here):
    teacher_toml, student_toml = (block for block in blocks("toml") if block.startswith("# "))
    for name, text in (("teacher", teacher_toml), ("student", teacher_toml.replace('"teacher"', '"student"'))):
        (here / f"{name}.toml").write_text(text)
    student = distillkit.Recipe.load(here / "student.toml").model_dump(mode="json", exclude_none=True)
    import tomllib

    student |= tomllib.loads(student_toml)
    short = {"num_steps": 5, "checkpoint_every": 5, "precision": "fp32"}
    teacher = distillkit.Recipe.load(here / "teacher.toml").model_copy(update=short)
    distillkit.train(teacher, here / "runs" / "teacher")
    distillkit.train(distillkit.Recipe.create(**(student | short)), here / "runs" / "student")
    Image.open(here / "photos" / "0.png").save(here / "photo.png")
    (usage,) = (block for block in blocks("python") if "ImageCodec" in block)
    scope = run(usage)
    assert scope["picture"].shape == (160, 160, 3)


def test_the_pair_of_ones_own(here):
    (code,) = (block for block in blocks("python") if "CodecPair" in block)
    scope = run(code)
    module = type("Mine", (), {"register_pairs": staticmethod(scope["register_pairs"])})()
    assert "mine.hyperprior" in distillkit.load_plugins(mine=module).components["pair"]
    testing.check_pair(scope["MyPair"])


def test_the_loss_of_ones_own():
    (code,) = (block for block in blocks("python") if "LossTerm" in block)
    testing.check_loss_term(run(code)["LatentMse"])


def test_the_commands_exist():
    from distillkit.cli.app import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"^distillkit (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert named
    assert named <= commands


def test_the_recipe_reference_has_every_key_and_default():
    from distillkit.recipe import DataSettings, OptimizerSettings, Recipe, TeacherCacheSettings

    text = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \|([^|]*)\|", text, flags=re.MULTILINE))
    tables = {"data": DataSettings, "optimizer": OptimizerSettings, "teacher_cache": TeacherCacheSettings}
    fields = {name: field for name, field in Recipe.model_fields.items() if name not in tables}
    for table, settings in tables.items():
        fields |= {f"{table}.{name}": field for name, field in settings.model_fields.items()}
    assert rows.keys() == fields.keys()
    for name, field in fields.items():
        if isinstance(field.default, int | float | str):
            expected = f'"{field.default}"' if isinstance(field.default, str) else str(field.default)
            got = rows[name].strip().strip("`")
            assert got == expected or float(got) == field.default, name
