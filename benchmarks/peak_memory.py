"""Peak memory of a distilled run against that of the student alone.

    python benchmarks/peak_memory.py [--size lite] [--steps 6] [--precision auto] [--json]

Each run is a separate process. On a GPU the figure is the most that torch had allocated; on a CPU the most that the
process held resident, minus what it held before the run (libraries, which are larger than a small student).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
from pathlib import Path

import torch
from setting import common, photographs, student, teacher

import distillkit

MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="lite", choices=["tiny", "lite", "paper"])
    parser.add_argument("--steps", type=int, default=6, help="over the three phases")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = common(arguments.size, photographs(folder / "images"), arguments.precision)
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(1) as pool:
            file = pool.apply(teacher, (folder, keys))
        parts = {**keys, "accumulate": 4}
        rows = {
            "student alone": student(arguments.steps, keys, None),
            "FEDS": student(arguments.steps, keys, file),
            "FEDS, accumulate = 4": student(arguments.steps, parts, file),
        }
        peaks = {}
        for name, recipe in rows.items():
            with spawn.Pool(1) as pool:
                peaks[name] = pool.apply(peak_mib, (recipe, folder / name.replace(" ", "-")))
    if arguments.json:
        print(json.dumps({"peak_mib": peaks}, indent=2))
        return
    for name, peak in peaks.items():
        print(f"{name:24s} {peak:8.0f} MiB   {peak / peaks['student alone']:.2f} x the student alone")


def peak_mib(recipe: distillkit.Recipe, folder: Path) -> float:
    """Return the most memory that a run took, in MiB."""
    torch.set_num_threads(1)
    distillkit.load_plugins().get("pair", recipe.pair.name, "")(
        distillkit.load_plugins().configure("pair", recipe.pair.name, recipe.pair.options, "")[1]
    ).build_student()  # imports every library
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    distillkit.train(recipe, folder)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


if __name__ == "__main__":
    main()
