"""docs/deploy.md: its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from distillkit.cli.app import app
from distillkit.cli.bench import Classical
from distillkit.cli.export import Target
from distillkit.evaluation.classical import CLASSICAL

TEXT = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_options_are_those_of_bench():
    command = typer.main.get_command(app).commands["bench"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"^\| `(--\w+)", TEXT.partition("## Measure it")[2], re.MULTILINE))
    assert named == known - {"--teacher", "--data", "--out", "model", "--help", "--quiet", "-q"}


def test_every_target_and_classical_codec_is_described():
    assert re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)[:5] == [target.value for target in Target]
    assert [codec.value for codec in Classical] == list(CLASSICAL)
    titles = re.findall(r"^\| (JPEG XL|\w+) \| (?:lib|VVenC)", TEXT, re.MULTILINE)
    assert titles == ["JPEG", "WebP", "AVIF", "JPEG XL", "VVC"]
