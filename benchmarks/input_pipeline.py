"""Crops per second that the input pipeline delivers, against those that a training step takes.

    python benchmarks/input_pipeline.py [--size lite] [--data FOLDER] [--seconds 5] [--threads 1] [--json]

Images as files and as shards, decoded for each crop by 0, 1 and 2 worker processes, or held in memory. The last column
is the crops delivered for each that a step of FEDS's first phase takes, the most expensive one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from setting import common, photographs, student, teacher

import distillkit
from distillkit.data.crops import CropDataset, batches
from distillkit.data.shards import list_training_images, pack
from distillkit.training.distributed import Ranks
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.metrics import MetricsWindow
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.trainer import Trainer

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="lite", choices=["tiny", "lite", "paper"])
    parser.add_argument("--data", type=Path, help="your images; by default 64 made-up ones of 768x768")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured for each row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = arguments.data or photographs(folder / "images", 64, 768)
        pack(images, folder / "shards")
        taken = crops_taken(arguments.size, photographs(folder / "few"), folder, arguments.seconds)
        rows = {}
        for kind, source in (("files", images), ("shards", folder / "shards")):
            paths = list_training_images(source).images
            for workers in (0, 1, 2):
                dataset = CropDataset(paths, 128, seed=0, cache_mib=0)
                rows[f"{kind}, {workers} workers"] = crops_given(dataset, workers, arguments.seconds)
        dataset = CropDataset(list_training_images(images).images, 128, seed=0, cache_mib=4096)
        rows["in memory"] = crops_given(dataset, 0, arguments.seconds)
    if arguments.json:
        print(json.dumps({"taken_per_second": taken, "given_per_second": rows}, indent=2))
        return
    print(f"a training step of {arguments.size} takes {taken:.0f} crops/s with {arguments.threads} threads")
    for name, given in rows.items():
        print(f"{name:20s} {given:8.0f} crops/s   {given / taken:6.1f} x")


def crops_given(dataset: CropDataset, workers: int, seconds: float) -> float:
    stream = batches(dataset, BATCH, 0, 10**6, workers)
    for _ in range(4):
        next(stream)
    start, number = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(stream)
        number += BATCH
    rate = number / (time.perf_counter() - start)
    stream.close()
    return rate


def crops_taken(size: str, images: Path, folder: Path, seconds: float) -> float:
    plugins = distillkit.load_plugins()
    keys = common(size, images, "auto", batch_size=BATCH)
    recipe = resolve(student(100, keys, teacher(folder, keys)), plugins)
    run = RunFolder(folder / "run")
    run.open(recipe)
    setup = prepare(recipe, plugins)
    ranks = Ranks()
    trainer = Trainer(recipe, run, plugins, setup, ranks)
    stage = setup.stages[0]
    trainer._enter(stage)
    setup.task.train()
    batch = next(batches(setup.dataset, BATCH, 0, 1))
    window = MetricsWindow(list(stage.phase.weights), 0, ranks)
    for place in range(3):
        trainer._step(batch, stage, 0, place, window)
    start, number = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        trainer._step(batch, stage, 0, 3, window)
        window.means()  # waits for the device
        number += BATCH
    return number / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
