"""Tables in narrow terminals: every figure of every table that a command prints is there, whole."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

import pytest
from rich import box
from rich.console import Console
from typer.testing import CliRunner

from distillkit.cli.app import app, show
from distillkit.evaluation.fitted import FittedTable
from distillkit.model.file import save_model
from tests.lively import adapter

NAME = "a-model-with-a-name-that-is-longer-than-most-0.013-seed0"
ROOT = Path(__file__).parents[2]


def table(**options) -> FittedTable:
    made = FittedTable("", title="Means over 24 pictures", caption="a caption", **options)
    for number in range(12):
        made.add_column(f"heading\n{number}", justify="right")
    made.add_row(NAME, *(f"{10 + number}.1234" for number in range(12)))
    return made


@pytest.mark.parametrize("options", [{}, {"box": box.SIMPLE_HEAD, "pad_edge": False}, {"box": None}])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_wide_table(width, options):
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(table(**options, collapse_padding=bool(options)))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert all(text.count(f"{10 + number}.1234") == 1 for number in range(12))
    assert all(text.count(f" {number} ") >= 1 for number in range(10))  # of the headings
    assert text.count("Means over 24 pictures") == text.count("a caption") == 1
    assert "…" not in text


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("narrow") / NAME
    folder.mkdir()
    file = folder / "model.safetensors"
    save_model(file, adapter("checkerboard"), "models.cheng2020", {"size": "tiny"}, "student", 0.013)
    return folder


def commands(name: str, model: Path, photographs: Path) -> list[str]:
    out = str(model.parent / "out")
    data = ["--data", str(photographs)]
    return {
        "recipes": [],
        "doctor": [],
        "pairs": [],
        "family": [str(ROOT / "benchmarks/lite.json")],
        "compress": [str(photographs), f"{model.parent}/dk", "--model", str(model)],
        "evaluate": [str(model), "zoo:lite-student", *data, "--out", out],
        "compare": [str(model), "zoo:lite-student", *data, "--out", out, "--classical", "jpeg,webp"],
        "bench": [str(model), "--teacher", "zoo:lite-student", *data, "--out", out, "--repeats=1", "--against=jpeg"],
    }[name]


QUICK = ("recipes", "doctor", "family", "compress")
SLOW = ("pairs", "evaluate", "compare", "bench")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_command_that_prints_tables(name, model, photographs, monkeypatch):
    """What a wide terminal shows, narrow ones show, too."""
    contents: list = []
    monkeypatch.setattr(Console, "print", lambda _, *content, **options: contents.extend(content))
    done = CliRunner().invoke(app, [name, *commands(name, model, photographs)], catch_exceptions=False)
    assert done.exit_code in (0, 1), done.output
    assert contents
    monkeypatch.undo()
    for content in contents:
        wide = rendered(content, 400)
        for width in (60, 80):
            narrow = rendered(content, width)
            assert max(map(len, narrow.splitlines())) <= width
            assert "\u2026" not in narrow
            if name != "doctor":  # prose alone
                assert not figures(wide) - figures(narrow), f"at {width} columns:\n{narrow}"


def rendered(content, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(content)
    return console.file.getvalue()


def figures(text: str) -> Counter[str]:
    """Numbers with two decimals and more, as they stand in cells of figures alone."""
    return Counter(re.findall(r"(?<![\w.-])[+-]?\d+\.\d{2,}(?![\w.-])", text))


def test_show(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert "19.1234" in str(table())
    assert max(map(len, str(table()).splitlines())) <= 60
    show(table(), "", False)
    assert "19.1234" in capsys.readouterr().out
