"""Kill a run again and again, and see whether anything is lost.

    python benchmarks/faults.py [--kills 50] [--steps 400] [--processes 1] [--json]

A distilled `tiny` student is trained once without interruption, and once in processes that get SIGKILL at random
moments: while they start, while they compute, and (a checkpoint is written at each step) while they write. After each
kill the newest whole checkpoint must be there, and the next process must continue from it; at the end, weights and
metrics must be those of the uninterrupted run. With `--processes 2`, two train together, one of them (either) is
killed, and the other is asked to end, as torchrun does. Exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import distillkit
from distillkit.training.folder.checkpoint import list_checkpoints
from distillkit.training.folder.run_folder import RunFolder

STEP = 0.3  #: seconds, more than a step takes: the moment of a kill within its step
PATIENCE = 30  #: seconds that the others have to end when one is gone, as under torchrun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400, help="of the run; it must outlast the kills")
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # processes are forked, so that a life is not all imports
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_again_and_again(
            Path(folder), arguments.kills, arguments.steps, arguments.seed, arguments.processes
        )
    if arguments.json:
        print(json.dumps(counts))
    else:
        for name, count in counts.items():
            print(f"{name.replace('_', ' '):42s} {count}")
    if counts["kills"] < arguments.kills:
        sys.exit(f"the run was done after {counts['kills']} kills: give it more --steps")
    if (
        counts["runs_lost"]
        or counts["steps_lost"]
        or counts["processes_hung"]
        or not counts["same_weights"]
        or not counts["same_metrics"]
    ):
        sys.exit(1)


class Life:
    """Processes that train together, from their start to the death of one of them or the end of the run."""

    def __init__(self, recipe: distillkit.Recipe, folder: Path, num: int) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.processes = [
            multiprocessing.get_context("fork").Process(target=_train, args=(recipe, folder, rank, num, port))
            for rank in range(num)
        ]
        for process in self.processes:
            process.start()

    @property
    def goes_on(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def kill(self, victim: int) -> int:
        """Kill one, tell the others to end as torchrun does, and return how many did not."""
        self.processes[victim].kill()
        self.processes[victim].join()
        hung = 0
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(PATIENCE)
            if process.is_alive():
                hung += 1
                process.kill()
                process.join()
        return hung

    def finish(self) -> bool:
        """Wait for the end; return whether it was a good one."""
        for process in self.processes:
            process.join()
        return all(process.exitcode == 0 for process in self.processes)


def kill_again_and_again(folder: Path, kills: int, steps: int, seed: int, num: int) -> dict[str, int | bool]:
    """Return what happened."""
    recipe = _recipe(folder, steps, num)
    whole, run = RunFolder(folder / "whole"), RunFolder(folder / "run")
    moments = random.Random(seed)
    counts = dict.fromkeys(
        (
            "kills",
            "while_starting",
            "while_writing",
            "checkpoints_damaged",
            "processes_hung",
            "steps_lost",
            "runs_lost",
        ),
        0,
    )
    while counts["kills"] < kills and not run.model.exists():
        before = _newest_step(run)
        life = Life(recipe, run.path, num)
        # One in five dies while it starts, the others after some steps: few enough that all kills fit in the run.
        goal = before + (moments.randint(1, max(1, steps // kills - 1)) if moments.random() < 0.8 else 0)
        while _newest_step(run) < goal and life.goes_on:
            time.sleep(0.003)
        reached = _newest_step(run)
        if moments.random() < 0.5:
            life.processes[0].join(moments.uniform(0, STEP))
        else:  # as soon as a file is begun
            while life.goes_on and not list(run.checkpoints.glob("*.partial")):
                time.sleep(0.0005)
        if not life.goes_on:
            counts["runs_lost"] += not life.finish()
            break
        counts["while_writing"] += bool(list(run.checkpoints.glob("*.partial")))
        counts["processes_hung"] += life.kill(moments.randrange(num))
        counts["kills"] += 1
        counts["while_starting"] += reached == before
        if list_checkpoints(run.checkpoints):
            state, notes = run.newest_state()
            counts["checkpoints_damaged"] += len(notes)
            counts["steps_lost"] += max(0, max(before, reached) - (state["step"] if state else 0))
    for last in (run, whole):
        counts["runs_lost"] += not Life(recipe, last.path, num).finish()
    weights = [distillkit.load_model(each.model).fingerprint for each in (run, whole) if each.model.exists()]
    return {
        **counts,
        "same_weights": len(weights) == 2 and weights[0] == weights[1],
        "same_metrics": _metrics(run) == _metrics(whole),
    }


def _recipe(folder: Path, steps: int, batch_size: int) -> distillkit.Recipe:
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for index in range(2):
        picture = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(picture).resize((128, 128), Image.Resampling.BICUBIC).save(folder / "images" / f"{index}.png")
    common = {
        "pair": {"name": "models.cheng2020", "size": "tiny"},
        "data": {"train": folder / "images", "crop": 64, "batch_size": batch_size},
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
    Life(teacher, folder / "teacher", 1).finish()
    return distillkit.Recipe.create(
        num_steps=steps,
        teacher=folder / "teacher" / "model.safetensors",
        losses={"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}},
        schedule={"name": "feds.staged"},
        **common,
    )


def _train(recipe: distillkit.Recipe, folder: Path, rank: int, num: int, port: int) -> None:
    torch.set_num_threads(1)  # a fork breaks the pool of threads; made again before autograd starts threads
    if num > 1:  # as torchrun sets them
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num)}
        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    distillkit.train(recipe, folder)
    sys.stdout.flush()
    os._exit(0)  # gloo's threads now and then abort a process that winds down


def _newest_step(run: RunFolder) -> int:
    paths = list_checkpoints(run.checkpoints)
    return int(paths[-1].stem.removeprefix("step-")) if paths else 0


def _metrics(run: RunFolder) -> list[dict]:
    path = run.path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in lines]


if __name__ == "__main__":
    main()
