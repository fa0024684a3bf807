"""Some damaged and forged files, as the scripts under `benchmarks/` make them by the ten thousand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    command = [sys.executable, f"benchmarks/{script}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "count", "threads"), [("checkerboard", 500, 1), ("serial", 500, 2)])
def test_no_bad_file_gets_through(codec, count, threads):
    result = run("fuzz.py", "--codec", codec, "--count", str(count), "--threads", str(threads))
    assert result["files"] == count
    assert result["outcomes"]["refused"] > 0.9 * count
    allowed = {"refused", "the picture that was compressed", "a picture that its forger chose"}
    assert set(result["outcomes"]) <= allowed
    kinds = {name.partition(":")[0] for name in result["kinds"]}
    damages = {"bits", "bits, CRC computed", "truncated", "header, CRC computed", "random bytes", "another substream"}
    assert damages | {"another substream, its hash computed"} <= kinds


@pytest.mark.slow
def test_no_bad_model_or_recipe_gets_through():
    result = run("fuzz_inputs.py", "--models", "25", "--recipes", "100")
    assert (result["models"]["files"], result["recipes"]["files"]) == (25, 100)
    assert result["models"]["slowest_seconds"] < 60
    kinds = {name.partition(":")[0] for name in result["models"]["kinds"]}
    assert {"bits", "a field, checksum computed", "a source, checksum computed"} <= kinds
