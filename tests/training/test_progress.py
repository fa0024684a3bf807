"""What a user sees of a run: in a terminal of any width, and in a file."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from distillkit.training.display.progress import ProgressDisplay
from distillkit.training.display.screens import duration

METRICS = {
    "step": 120_000,
    "phase": "channel-finetune",
    "rate_bpp": 0.51234,
    "psnr_db": 31.456,
    "rd_cost": 1.23456,
    "learning_rate": 1e-3,
    "seconds_per_step": 0.5,
    "loss/feds.alignment": 0.012345,
    "weight/feds.alignment": 1.0,
    "loss/feds.channel_entropy": 0.98765,
}
VALIDATED = {"step": 120_000, "rate_bpp": 0.5, "psnr_db": 30.0, "rd_cost": 1.5, "best_step": 1000, "best_rd_cost": 1.4}
SHOWN = (
    "0.512 bpp",
    "31.46 dB",
    "RD cost 1.235",
    "feds.alignment 0.01235",
    "feds.channel_entropy 0.9877",
    "held out 1.5",
)
HEADER = (
    ("device", "cpu, fp32"),
    ("losses", "feds.alignment, feds.channel_entropy"),
    ("writes to", "/a/long/" + "x" * 90),
)


def run(tmp_path, name="student-at-a-long-name-0.013-seed0"):
    recipe = SimpleNamespace(validation=None)
    about = {"folder": tmp_path, "start_step": 0, "num_steps": 400_000, "notes": ("a note",), "header": HEADER}
    return SimpleNamespace(name=name, recipe=recipe, **about)


def show(display, run) -> None:
    display.run_started(run)
    display.phase_started(run, SimpleNamespace(name="channel-finetune"), 0)
    display.validated(run, VALIDATED)
    display.metrics_logged(run, METRICS)
    display.close()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal(width, tmp_path):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, markup=False)
    show(ProgressDisplay(console), run(tmp_path))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()).partition("a note\n")[2]
    assert "…" not in last
    text = " ".join(last.split())
    assert all(figure in text for figure in SHOWN)
    assert "120000/400000" in text
    assert re.search(r"\d+ s, 38:5\d h left", text)
    assert max(map(len, last.splitlines())) <= width


def test_a_file(tmp_path):
    console = Console(file=io.StringIO(), width=60, markup=False)
    show(ProgressDisplay(console), run(tmp_path))
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == ["student-at-a-long-name-0.013-seed0", "  device    cpu, fp32"]
    assert f"  writes to /a/long/{'x' * 90}" in lines  # a path is one word, however long
    assert "student-at-a-long-name-0.013-seed0: a note" in lines
    (line,) = [line for line in lines if "step 120000/400000  0.512 bpp" in line]
    assert all(figure in line for figure in SHOWN)
    assert line.endswith("  38:53 h left")


def test_quiet(tmp_path):
    console = Console(file=io.StringIO(), quiet=True)
    display = ProgressDisplay(console)
    show(display, run(tmp_path))
    assert console.file.getvalue() == ""
    assert display.has_run


def test_the_header_is_shown_once(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    display = ProgressDisplay(console)
    for _ in range(2):  # a run that goes back after it diverged starts again
        display.run_started(run(tmp_path))
    assert console.file.getvalue().count("writes to") == 1
    assert console.file.getvalue().count("a note") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99.4, "99 s"),
        (99.6, "1:40 min"),
        (432, "7:12 min"),
        (3599.7, "1:00 h"),
        (11220, "3:07 h"),
        (360_000, "100:00 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
