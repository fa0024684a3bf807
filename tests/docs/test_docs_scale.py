"""The commands and recipes of docs/scale.md run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import distillkit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def run(command, folder):
    words = shlex.split(command)
    modules = {"torchrun": "torch.distributed.run", "distillkit": "distillkit"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", modules[words[0]], *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_pack_and_train_in_two_processes(tmp_path, photographs):
    """The first and the `pack` command, on the recipe keys that the page shows."""
    (tmp_path / "photos").symlink_to(photographs)
    done = run(next(block for block in blocks("sh") if block.startswith("distillkit pack")), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 images in 1 shards, 0 left out: shards" in done.stdout
    data = next(block for block in blocks("toml") if block.startswith("[data]"))
    values = tomllib.loads(data)["data"]
    assert values.keys() == {"train", "crop", "num_workers", "cache_mib", "bad_images"}
    short = data.replace("crop = 256", "crop = 64\nbatch_size = 2").replace("num_workers = 8", "num_workers = 1")
    head = 'num_steps = 2\ndevice = "cpu"\npair = {name = "models.cheng2020", size = "tiny"}\n'
    (tmp_path / "recipe.toml").write_text(head + short)
    done = run(next(block for block in blocks("sh") if "--standalone" in block), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Trained model:") == 1
    model = distillkit.load_model(tmp_path / "runs" / "student")
    assert model.pair == "models.cheng2020"


@pytest.mark.parametrize("script", sorted(set(re.findall(r"python (benchmarks/\w+\.py)", TEXT))))
@pytest.mark.slow
def test_the_scripts_are_there(script):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    options = set(re.findall(r"--[\w-]+", " ".join(re.findall(rf"python {re.escape(script)}([^;`\n>]*)", TEXT)))) - {
        "--"
    }
    assert all(option in done.stdout for option in options), options
