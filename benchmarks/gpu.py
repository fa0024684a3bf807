"""What a GPU gives, in one go: training by mode and batch, FEDS's phases, coding, and files that cross devices.

    python benchmarks/gpu.py --minutes 8 --out FOLDER [--data PHOTOS] [--device auto] [--tiny]

It needs the project, its pip packages and a folder of pictures (without `--data` some are made up). Rows are measured
in the order of their worth until the minutes are over; one that fails, or that there was no time for, says so.
`FOLDER/gpu.json` is written after every row. `--tiny` takes the smallest sizes, for a CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from setting import FEDS, photographs
from torch import nn

import distillkit
from distillkit.codec.files import Settings
from distillkit.codec.folder import code_files
from distillkit.data.images import read_image
from distillkit.data.listing import list_images
from distillkit.model.device import device_name, find_device
from distillkit.training.distributed import Ranks
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.metrics import MetricsWindow
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.trainer import Trainer

LONG = 300_000  #: steps of a recipe, of which a few are timed
PAIRS = {
    "lite": {"name": "models.cheng2020", "size": "lite"},
    "lowres": {"name": "models.lowres", "size": "lite"},
    "paper": {"name": "models.cheng2020", "size": "paper"},
}
TINY = {"lite": {"name": "models.cheng2020", "size": "tiny"}, "lowres": {"name": "models.lowres", "size": "tiny"}}


class Report:
    """The rows, written as they come."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.end = time.monotonic() + 60 * arguments.minutes
        self.out = arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        device = find_device(arguments.device, "--device")
        self.content: dict[str, Any] = {
            "device": device_name(device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "tiny": arguments.tiny,
            "rows": {},
        }

    def row(self, name: str, measure, *given) -> None:
        """Measure a row, or note why not."""
        if time.monotonic() > self.end:
            value: Any = {"not measured": "the minutes are over"}
        else:
            try:
                value = measure(*given)
            except Exception as error:  # of one row: the others are worth having
                value = {"failed": f"{type(error).__name__}: {error}", "where": traceback.format_exc()[-1500:]}
        self.content["rows"][name] = value
        (self.out / "gpu.json").write_text(json.dumps(self.content, indent=2), encoding="utf-8")
        print(f"{name:48s} {json.dumps(value)[:200]}", flush=True)


class Bench:
    """What rows are measured with."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, images: Path) -> None:
        self.folder, self.images = folder, images
        self.device = find_device(arguments.device, "--device")
        self.crop, self.seconds = (64, 0.5) if arguments.tiny else (256, 4.0)
        self.pairs = TINY if arguments.tiny else PAIRS
        self.plugins = distillkit.load_plugins()
        self.teachers: dict[str, Path] = {}

    def recipe(self, pair: str, batch_size: int, compile: str = "none", **more: Any) -> distillkit.Recipe:
        data = {"train": self.images, "crop": self.crop, "batch_size": batch_size}
        keys = {"pair": self.pairs[pair], "data": data, "device": str(self.device), "compile": compile}
        optimizer = {"name": "muon", "learning_rate": 1e-3}
        often = {"log_every": 10**9, "checkpoint_every": 10**9}
        values = {**keys, **often, "optimizer": optimizer, "num_steps": LONG, **more}
        return resolve(distillkit.Recipe.create(**values), self.plugins)

    def feds(self, pair: str, batch_size: int, compile: str = "none") -> distillkit.Recipe:
        if pair not in self.teachers:
            alone = self.recipe(pair, batch_size, trains="teacher", num_steps=1)
            self.teachers[pair] = distillkit.train(alone, self.folder / f"teacher-{pair}", observers=[])
        thirds = {"name": "feds.staged", "alignment_share": 1 / 3, "channel_share": 1 / 3}
        return self.recipe(pair, batch_size, compile, losses=FEDS, teacher=self.teachers[pair], schedule=thirds)

    def trainer(self, recipe: distillkit.Recipe) -> Trainer:
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        run = RunFolder(self.folder / "run")
        run.open(recipe)
        return Trainer(recipe, run, self.plugins, prepare(recipe, self.plugins), Ranks(recipe.device))

    def rate(self, step, batch_size: int) -> dict[str, float]:
        """Call a step for some seconds, once it is warm, and return what it does."""
        start = time.perf_counter()
        for _ in range(5):
            step()
        self.wait()
        warm, number, start = time.perf_counter() - start, 0, time.perf_counter()
        while number < 3 or time.perf_counter() - start < self.seconds:
            step()
            number += 1
            if number % 20 == 0:
                self.wait()  # the clock must not run ahead of the device
        self.wait()
        seconds = (time.perf_counter() - start) / number
        return {"ms_per_step": 1e3 * seconds, "crops_per_second": batch_size / seconds, "warm_up_seconds": warm}

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def training(self, recipe: distillkit.Recipe, phase: int = 0) -> dict[str, float]:
        """Time the steps of a phase, with the crops that they need."""
        trainer = self.trainer(recipe)
        stage = trainer.setup.stages[phase]
        trainer.setup.task.train()
        with trainer.ranks.on_device():
            trainer._enter(stage)
            window = MetricsWindow(list(stage.phase.weights), 0, trainer.ranks)
            stream = trainer.crops.batches(stage.dataset, stage.batch_size, 0, LONG, stage.first_sample)
            places = itertools.count()

            def step() -> None:
                place = next(places)
                trainer._step(next(stream), stage, place, place, window)

            return self.rate(step, stage.batch_size)

    def by_hand(self, pair: str, batch_size: int) -> dict[str, float]:
        """Time what a researcher would write: eager, on crops that lie on the device."""
        trainer = self.trainer(self.recipe(pair, batch_size))
        codec, optimizer, auxiliary = trainer.setup.codec, trainer.pace.optimizer, trainer.aux_optimizer
        images = torch.rand(batch_size, 3, self.crop, self.crop, device=self.device)
        codec.module.train()

        def step() -> None:
            with trainer.precision.autocast():
                output = codec.forward(images)
            bits = -sum(each.float().log2().sum() for each in output.likelihoods.values())
            mse = (output.x_hat.float() - images).square().mean()
            loss = 0.013 * 255**2 * mse + bits / (batch_size * self.crop**2)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainer.parameters, 1.0)
            optimizer.step()
            auxiliary.zero_grad()
            codec.aux_loss().backward()
            auxiliary.step()

        return self.rate(step, batch_size)

    def coding(self, model: str, images: list[Path]) -> dict[str, float]:
        """Time single pictures (the median) and a folder of them."""
        codec = distillkit.load_codec(model, device=str(self.device))
        pictures = [read_image(path) for path in images]
        codec.decode(codec.encode(pictures[0]))
        times: dict[str, list[float]] = {"encode": [], "decode": []}
        for picture in pictures:
            start = time.perf_counter()
            data = codec.encode(picture)
            middle = time.perf_counter()
            codec.decode(data)
            times["encode"].append(middle - start)
            times["decode"].append(time.perf_counter() - middle)
        found = {f"{name}_ms": 1e3 * float(np.median(values)) for name, values in times.items()}
        packed, back = self.folder / "packed", self.folder / "back"
        pairs = [(path, packed / f"{path.stem}.dk") for path in images]
        for direction, files in (("compress", pairs), ("decompress", [(b, back / f"{b.stem}.png") for _, b in pairs])):
            start = time.perf_counter()
            settings = Settings(direction, Path(model), device=str(self.device), trusted=True)  # type: ignore[arg-type]
            coded = code_files(settings, files, lambda _: None, lambda _: None)
            seconds = time.perf_counter() - start
            assert not [each.error for each in coded if each.error]
            found[f"{direction}_pictures_per_second"] = len(files) / seconds
        return found

    def crossing(self, model: str, images: list[Path]) -> dict[str, float]:
        """Decode on the CPU what the device wrote, and the other way round."""
        codecs = [distillkit.load_codec(model, device=device) for device in (str(self.device), "cpu")]
        crossed, largest = 0, 0
        for path, (writer, reader) in itertools.product(images, (codecs, codecs[::-1])):
            data = writer.encode(read_image(path))
            here, there = (codec.decode(data).astype(int) for codec in (writer, reader))
            crossed, largest = crossed + 1, max(largest, int(np.abs(here - there).max()))
        return {"files": crossed, "largest_difference_in_levels": largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--data", type=Path, help="folder of pictures of at least 256x256; by default made-up ones")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, for a CPU")
    arguments = parser.parse_args()
    report = Report(arguments)
    batches = (2,) if arguments.tiny else (16, 64, 8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        number, side = (4, 128) if arguments.tiny else (24, 768)
        images = arguments.data or photographs(folder / "images", number, side)
        bench = Bench(arguments, folder, images)
        paths = list(list_images(images))[: 2 if arguments.tiny else 24]
        model = "zoo:lite-student"
        usual = batches[0]
        for mode in ("none", "graph"):
            report.row(f"lite, {mode}, batch {usual}", lambda m=mode: bench.training(bench.recipe("lite", usual, m)))
        report.row(f"lite, by hand, batch {usual}", bench.by_hand, "lite", usual)
        for mode, phase in itertools.product(("none", "graph"), range(3)):
            label = ("alignment", "channel", "finetune")[phase]
            report.row(
                f"lite, FEDS {label}, {mode}, batch {usual}",
                lambda m=mode, p=phase: bench.training(bench.feds("lite", usual, m), p),
            )
        report.row("coding, lite student", bench.coding, model, paths)
        report.row("files across devices", bench.crossing, model, paths)
        for batch_size, mode in itertools.product(batches[1:], ("graph", "none")):
            report.row(
                f"lite, {mode}, batch {batch_size}",
                lambda b=batch_size, m=mode: bench.training(bench.recipe("lite", b, m)),
            )
        for pair, mode in itertools.product(list(bench.pairs)[1:], ("graph", "none")):
            report.row(
                f"{pair}, {mode}, batch {usual}",
                lambda p=pair, m=mode: bench.training(bench.recipe(p, usual, m)),
            )
        if not arguments.tiny:
            for batch_size in (16, 64):
                report.row(
                    f"lite, inductor, batch {batch_size}",
                    lambda b=batch_size: bench.training(bench.recipe("lite", b, "inductor")),
                )


if __name__ == "__main__":
    main()
