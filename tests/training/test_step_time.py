"""The benchmark of a step follows the loop: it still does what distillkit does, in every phase."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_hand_written_loop_arrives_at_the_same_loss():
    command = [sys.executable, "-W", "ignore", "benchmarks/step_time.py", "--steps", "1", "--threads", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    assert [row["phase"] for row in rows] == ["align", "channel", "finetune"]
    assert all(row["distillkit_ms"] > 0 and row["hand_ms"] > 0 for row in rows)
