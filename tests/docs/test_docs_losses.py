"""docs/losses.md names every loss that ships, and its recipe is one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import distillkit

TEXT = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")


def test_the_table():
    named = re.findall(r"^\| `([\w.]+)` \|", TEXT, re.MULTILINE)
    assert sorted(named) == sorted(distillkit.load_plugins().components["loss"])


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL), ids=["prim", "teachers", "labels"])
def test_the_recipes(recipe, teacher_file, tmp_path, plugins, block):
    keys = tomllib.loads(block) | {"num_steps": 2}
    if "teachers" in keys:
        keys |= {"teachers": dict.fromkeys(keys["teachers"], teacher_file), "schedule": {"name": "core.constant"}}
    else:
        keys["teacher"] = teacher_file
    distillkit.train(recipe(**keys), tmp_path, plugins=plugins)


def test_the_phases_of_the_recipes_page():
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    blocks = [each for each in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[schedule.phases]]" in each]
    listed = []
    for block in blocks:
        schedule = tomllib.loads(block)["schedule"]
        schedule_class, config = distillkit.load_plugins().configure(
            "schedule", schedule.pop("name"), schedule, "recipe"
        )
        listed.append(schedule_class(config).phases(100, ["feds.alignment"]))
    phases, forced = listed
    assert [(phase.num_steps, phase.teacher_forcing) for phase in forced] == [(60, True), (40, False)]
    assert [phase.num_steps for phase in phases] == [60, 30, 10]
    assert (phases[1].crop, phases[1].surrogate, phases[2].lmbda) == (256, "rounding", 16.64)
