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


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL), ids=["prim", "labels"])
def test_the_recipes(recipe, teacher_file, tmp_path, plugins, block):
    distillkit.train(recipe(**tomllib.loads(block), teacher=teacher_file, num_steps=2), tmp_path, plugins=plugins)
