"""Put kept models where a family expects them, so that it continues from there on another machine.

    python benchmarks/restore_family.py benchmarks/lowres-lengths.toml --runs benchmarks/runs/lengths \
        teacher-0.013=zoo:lite-student
    distillkit family benchmarks/lowres-lengths.toml --out runs/lengths

Each job gets a run folder with its recipe and the model; the family takes it as done, measures it, and carries out
the rest. Kept models are in half precision: what starts from them differs by that rounding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import distillkit
from distillkit.family.plan import Family, plan
from distillkit.model.file import save_model
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.setup.resolve import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=Path)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the family's runs")
    parser.add_argument("models", nargs="+", help="JOB=MODEL")
    arguments = parser.parse_args()
    folder, plugins = arguments.runs.resolve(), distillkit.load_plugins()
    jobs = {job.name: job for job in plan(Family.load(arguments.family), folder)}
    for item in arguments.models:
        name, _, source = item.partition("=")
        model, run = distillkit.load_model(source, plugins), RunFolder(folder / name)
        run.open(resolve(jobs[name].recipe, plugins))
        if not run.model.exists():
            save_model(
                run.model, model.codec, model.pair, model.options, model.part, model.lmbda, objective=model.objective
            )
        print(f"{name}: {run.model}")


if __name__ == "__main__":
    main()
