"""The benchmarks that drive the loop themselves follow it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(script: str, *options: str) -> Any:
    command = [sys.executable, "-W", "ignore", f"benchmarks/{script}", "--size", "tiny", "--threads", "1", "--json"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_hand_written_loop_arrives_at_the_same_loss_in_every_phase():
    rows = run("step_time.py", "--steps", "1")
    assert [row["phase"] for row in rows] == ["align", "channel", "finetune"]
    assert all(row["distillkit_ms"] > 0 and row["hand_ms"] > 0 for row in rows)


@pytest.mark.slow
def test_the_others_measure(tmp_path):
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (200, 200, 3))
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / f"{number}.png")
    assert run("schedule_time.py", "--steps", "3", "--repeats", "1")
    assert run("input_pipeline.py", "--seconds", "0.1", "--data", str(tmp_path))
