"""`benchmarks/gpu.py` in its smallest form, on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_row_is_measured(tmp_path):
    command = [sys.executable, "-W", "ignore", "benchmarks/gpu.py", "--tiny", "--device", "cpu", "--minutes", "30"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--out", tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "gpu.json").read_text())
    rows = content["rows"]
    assert content["device"] == "cpu"
    assert not {name: row for name, row in rows.items() if "failed" in row or "not measured" in row}
    assert {"lite, none, batch 2", "lite, by hand, batch 2", "lite, FEDS channel, graph, batch 2"} <= rows.keys()
    assert all(row["crops_per_second"] > 0 for name, row in rows.items() if "batch" in name)
    assert rows["coding, lite student"]["decompress_pictures_per_second"] > 0
    assert rows["files across devices"] == {"files": 4, "largest_difference_in_levels": 0}


@pytest.mark.slow
def test_rows_without_time_say_so(tmp_path):
    command = [sys.executable, "-W", "ignore", "benchmarks/gpu.py", "--tiny", "--device", "cpu", "--minutes", "0"]
    subprocess.run([*command, "--out", tmp_path], cwd=ROOT, check=True, capture_output=True)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"].values()
    assert all(row == {"not measured": "the minutes are over"} for row in rows)
