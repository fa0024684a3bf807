"""Kill a run again and again, and see whether anything is lost.

    python benchmarks/faults.py [--kills 50] [--steps 400] [--json]

A distilled `tiny` student is trained once without interruption, and once in processes that get SIGKILL at random
moments: while they start, while they compute, and (a checkpoint is written at each step) while they write. After each
kill the newest whole checkpoint must be there, and the next process must go on from it; at the end, weights and
metrics must be those of the uninterrupted run. Exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import distillkit
from distillkit.checkpoint import list_checkpoints
from distillkit.run_folder import RunFolder

STEP = 0.3  #: seconds, more than a step takes: the moment of a kill within its step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400, help="of the run; it must outlast the kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # processes are forked, so that a life is not all imports
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_again_and_again(Path(folder), arguments.kills, arguments.steps, arguments.seed)
    if arguments.json:
        print(json.dumps(counts))
    else:
        for name, count in counts.items():
            print(f"{name.replace('_', ' '):42s} {count}")
    if counts["kills"] < arguments.kills:
        sys.exit(f"the run was done after {counts['kills']} kills: give it more --steps")
    if counts["runs_lost"] or counts["steps_lost"] or not counts["same_weights"] or not counts["same_metrics"]:
        sys.exit(1)


def kill_again_and_again(folder: Path, kills: int, steps: int, seed: int) -> dict[str, int | bool]:
    """Return what happened."""
    recipe = _recipe(folder, steps)
    whole, run = RunFolder(folder / "whole"), RunFolder(folder / "run")
    moments = random.Random(seed)
    counts = dict.fromkeys(
        ("kills", "while_starting", "while_writing", "checkpoints_damaged", "steps_lost", "runs_lost"), 0
    )
    while counts["kills"] < kills and not run.model.exists():
        before = _newest_step(run)
        process = multiprocessing.get_context("fork").Process(target=_train, args=(recipe, run.path))
        process.start()
        # One in five dies while it starts, the others after some steps: few enough that all kills fit in the run.
        goal = before + (moments.randint(1, max(1, steps // kills - 1)) if moments.random() < 0.8 else 0)
        while _newest_step(run) < goal and process.is_alive():
            time.sleep(0.003)
        reached = _newest_step(run)
        if moments.random() < 0.5:
            process.join(moments.uniform(0, STEP))
        else:  # as soon as a file is begun
            while process.is_alive() and not list(run.checkpoints.glob("*.partial")):
                time.sleep(0.0005)
        if not process.is_alive():
            counts["runs_lost"] += process.exitcode != 0
            break
        process.kill()
        process.join()
        counts["kills"] += 1
        counts["while_starting"] += reached == before
        counts["while_writing"] += bool(list(run.checkpoints.glob("*.partial")))
        if list_checkpoints(run.checkpoints):
            state, notes = run.newest_state()
            counts["checkpoints_damaged"] += len(notes)
            counts["steps_lost"] += max(0, max(before, reached) - (state["step"] if state else 0))
    for last in (run, whole):
        process = multiprocessing.get_context("fork").Process(target=_train, args=(recipe, last.path))
        process.start()
        process.join()
        counts["runs_lost"] += process.exitcode != 0
    weights = [distillkit.load_model(each.model).fingerprint for each in (run, whole) if each.model.exists()]
    return {
        **counts,
        "same_weights": len(weights) == 2 and weights[0] == weights[1],
        "same_metrics": _metrics(run) == _metrics(whole),
    }


def _recipe(folder: Path, steps: int) -> distillkit.Recipe:
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for index in range(2):
        picture = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(picture).resize((128, 128), Image.Resampling.BICUBIC).save(folder / "images" / f"{index}.png")
    common = {
        "pair": {"name": "models.cheng2020", "size": "tiny"},
        "data": {"train": folder / "images", "crop": 64, "batch_size": 1},
        "optimizer": {"name": "soap", "learning_rate": 1e-3},
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
        "checkpoint_every": 1,
    }
    teacher = distillkit.Recipe.create(trains="teacher", num_steps=1, **common)
    plugins = distillkit.load_plugins()
    pair, config = plugins.configure("pair", teacher.pair.name, teacher.pair.options, "pair")
    pair(config).build_teacher()  # imports here, once, what each life needs
    process = multiprocessing.get_context("fork").Process(target=_train, args=(teacher, folder / "teacher"))
    process.start()
    process.join()
    return distillkit.Recipe.create(
        num_steps=steps,
        teacher=folder / "teacher" / "model.safetensors",
        losses={"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}},
        schedule={"name": "feds.staged"},
        **common,
    )


def _train(recipe: distillkit.Recipe, folder: Path) -> None:
    distillkit.train(recipe, folder)


def _newest_step(run: RunFolder) -> int:
    paths = list_checkpoints(run.checkpoints)
    return int(paths[-1].stem.removeprefix("step-")) if paths else 0


def _metrics(run: RunFolder) -> list[dict]:
    path = run.path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in lines]


if __name__ == "__main__":
    main()
