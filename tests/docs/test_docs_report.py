"""docs/report.md: what its examples say is so."""

from __future__ import annotations

import re
from pathlib import Path

import distillkit
from distillkit import testing
from distillkit.report.citations import references

TEXT = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_examples(recipe):
    loss, page = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(loss, names)
    testing.check_loss_term(names["MyLoss"], same_channels=True)

    class Plugin:
        @distillkit.hookimpl
        def register_loss_terms(self, register):
            register("loss", names["MyLoss"])

    import tests.small_pair

    plugins = distillkit.load_plugins(mine=Plugin(), small=tests.small_pair)
    found = references(plugins, [recipe(losses={"mine.loss": {}})])
    assert [reference.key for reference in found if "mine.loss" in reference.used_by] == ["name2030losses"]
    exec(page, {})
