"""How many crops per second two processes train, against one: `torchrun`, DistributedDataParallel, gloo, CPU.

    python benchmarks/processes.py [--size lite] [--steps 30] [--repeats 3] [--json]

Each process has one thread and 8 crops per step, so two share a batch of 16; the second figure is for a batch of 8 that
they divide. The student alone, and with FEDS. The real program is run, and seconds per step are those of its metrics,
the smallest over stretches of a third of a phase.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from setting import common, photographs, student, teacher

import distillkit
from distillkit.training.setup.resolve import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="lite", choices=["tiny", "lite", "paper"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), arguments.size, arguments.steps, arguments.repeats)
    if arguments.json:
        print(json.dumps(rates, indent=2))
        return
    print(f"{arguments.size}, crops of 128x128 a second, one thread a process, largest of {arguments.repeats} runs")
    for name, row in rates.items():
        print(
            f"{name:14s} one process {row['one']:6.1f}   two {row['two']:6.1f} ({row['two'] / row['one']:.2f} x)   "
            f"two that divide 8 {row['divided']:6.1f} ({row['divided'] / row['one']:.2f} x)"
        )


def measure(folder: Path, size: str, steps: int, repeats: int) -> dict[str, dict[str, float]]:
    keys = common(size, photographs(folder / "images"), "auto") | {"log_every": max(1, steps // 9)}
    file = teacher(folder, keys)
    rates: dict[str, dict[str, float]] = {}
    settings = {"one": (1, 8), "two": (2, 16), "divided": (2, 8)}
    for repeat in range(repeats):
        for name, taught in (("student alone", None), ("FEDS", file)):
            for setting, (processes, batch_size) in settings.items():
                recipe = student(steps, keys | {"data": keys["data"] | {"batch_size": batch_size}}, taught)
                rate = run(recipe, folder / f"{name}-{setting}-{repeat}", processes)
                row = rates.setdefault(name, {})
                row[setting] = max(row.get(setting, 0.0), rate)
    return rates


def run(recipe: distillkit.Recipe, folder: Path, processes: int) -> float:
    """Return crops per second, the mean of the phases' largest rates."""
    file = folder.with_suffix(".toml")
    resolve(recipe, distillkit.load_plugins()).save(file)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "distillkit", "train", str(file), "--out", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    lines: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    phases: dict[str, float] = {}
    for line in lines:
        phases[line["phase"]] = min(phases.get(line["phase"], 1e9), line["seconds_per_step"])
    return recipe.data.batch_size * len(phases) / sum(phases.values())


if __name__ == "__main__":
    main()
