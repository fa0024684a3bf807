"""Some thousands of damaged and forged files, as `benchmarks/fuzz.py` makes them by the hundred thousand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = pytest.mark.slow


@pytest.mark.parametrize(("codec", "count"), [("checkerboard", 1000), pytest.param("serial", 1000, marks=SLOW)])
def test_no_bad_file_gets_through(codec, count):
    command = [sys.executable, "benchmarks/fuzz.py", "--codec", codec, "--count", str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["files"] == count
    assert result["outcomes"]["refused"] > 0.9 * count
    assert set(result["outcomes"]) <= {"refused", "the picture that was compressed"}
    kinds = {name.partition(":")[0] for name in result["kinds"]}
    assert {"bits", "bits, CRC mended", "truncated", "header, CRC mended", "random bytes", "substreams"} <= kinds
