"""Time whole schedules: distillkit, a naive loop, and the student alone.

    python benchmarks/schedule_time.py [--size lite] [--steps 60] [--repeats 3] [--threads 1] [--json]

Each row is a whole run of FEDS's three phases, from its first step to its last (not the start of the program), and the
rows take turns: with the teacher in every second step of the first two phases, as the recipes that ship for `lite` and
`paper` have it (`every = 2`), or in each of them. The naive loop does what is often seen: the whole teacher in each
step of each phase, and every loss with its weight, zero or not. The student alone is the control: the same steps,
phases and crops without teacher or losses. Smallest of the repeats; with one thread on a CPU it is processor time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from setting import common, photographs, student, teacher

import distillkit
from distillkit.data.crops import batches
from distillkit.training.distributed import Ranks
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.task import Taught
from distillkit.training.trainer import Trainer


class Clock:
    """Measures from the first step to the last, by a function that returns the time in seconds."""

    def __init__(self, now):
        self.now = now

    @distillkit.hookimpl
    def phase_started(self, step):
        if step == 0:
            self.started = self.now()

    @distillkit.hookimpl
    def metrics_logged(self, run, metrics):  # at the end of each phase
        self.seconds = self.now() - self.started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="lite", choices=["tiny", "lite", "paper"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(arguments, Path(folder))
    ratios = {name: value / seconds["student alone"] for name, value in seconds.items()}
    of_naive = {name: value / seconds["naive loop"] for name, value in seconds.items()}
    if arguments.json:
        print(json.dumps({"seconds": seconds, "of_student_alone": ratios, "of_naive_loop": of_naive}, indent=2))
        return
    print(f"{arguments.size}, {arguments.steps} steps, batch 8 of 128x128, {arguments.threads} threads, smallest")
    print(f"{'':24s} {'seconds':>8s} {'of the student alone':>22s} {'of the naive loop':>20s}")
    for name, value in seconds.items():
        print(f"{name:24s} {value:8.2f} {ratios[name]:22.2f} {of_naive[name]:20.2f}")


def measure(arguments, folder: Path) -> dict[str, float]:
    keys = common(arguments.size, photographs(folder / "images"), arguments.precision)
    file = teacher(folder, keys)
    often = student(arguments.steps, keys, file)
    plain = student(arguments.steps, keys, file, every=2)
    control = student(arguments.steps, keys, None)
    on_cpu = arguments.threads == 1 and not torch.accelerator.is_available()
    now = time.process_time if on_cpu else time.perf_counter  # which other work does not disturb
    rows = {
        "student alone": lambda: run(control, folder, now),
        "distillkit": lambda: run(plain, folder, now),
        "distillkit, every step": lambda: run(often, folder, now),
        "naive loop": lambda: naive(often, folder, now),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.repeats):
        for name, row in rows.items():
            times[name].append(row())
    return {name: min(values) for name, values in times.items()}


def run(recipe: distillkit.Recipe, folder: Path, now: Callable[[], float]) -> float:
    clock = Clock(now)
    distillkit.train(recipe, folder / "run", observers=[clock])
    shutil.rmtree(folder / "run")
    return clock.seconds


def naive(recipe: distillkit.Recipe, folder: Path, now: Callable[[], float]) -> float:
    """Run the whole teacher and every loss in each step."""
    plugins = distillkit.load_plugins()
    recipe = resolve(recipe, plugins)
    place = RunFolder(folder / "run")
    place.open(recipe)
    setup = prepare(recipe, plugins)
    trainer = Trainer(recipe, place, plugins, setup, Ranks())
    terms = list(recipe.losses)
    roles = sorted(set().union(*(setup.task.term(name).required_taps() for name in terms)))
    for stage in setup.stages:
        trainer._enter(stage)  # calibration, which is not part of the loop's time
    bank, device = setup.task.pairs["teacher"]._teacher_bank, trainer.ranks.device
    setup.task.train()
    stream = batches(setup.dataset, recipe.data.batch_size, 0, recipe.num_steps)
    start = now()
    for step, batch in enumerate(stream):
        images = batch.to(device)
        index, place_in_phase = setup.timeline.at(step)
        weights = setup.timeline.phases[index].weights_at(place_in_phase)
        with torch.no_grad(), trainer.precision.autocast():
            features = bank.run(images, roles, stop_early=False)[1]
        with trainer.precision.autocast():
            losses = trainer.step.task(images, {"teacher": Taught(features)}, terms)
        total = losses.rd.cost + sum(weights.get(name, 0.0) * loss for name, loss in losses.terms.items())
        trainer.pace.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(trainer.parameters, recipe.optimizer.clip_norm)
        trainer.pace.optimizer.step()
        trainer.aux_optimizer.zero_grad()
        setup.codec.aux_loss().backward()
        trainer.aux_optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = now() - start
    shutil.rmtree(folder / "run")
    return seconds


if __name__ == "__main__":
    main()
