"""How far a teacher's features, and the losses on them, move when it runs in bfloat16.

    python benchmarks/teacher_precision.py RUN --data FOLDER [--crop 256] [--json]

RUN is the folder of a trained teacher. For each tap: the norm of the difference over the norm of the float32 features.
For each loss: its value for an untrained student of the same pair, with either teacher, and the relative difference.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from setting import FEDS

import distillkit
from distillkit.data.crops import batches
from distillkit.training.distributed import Ranks
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.teaching.calibration import calibrate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--crops", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drift = measure(arguments, Path(folder))
    if arguments.json:
        print(json.dumps(drift, indent=2))
        return
    for tap, value in drift["taps"].items():
        print(f"tap {tap:24s} {value:.2e} of its norm")
    for loss, (exact, rounded) in drift["losses"].items():
        print(f"loss {loss:23s} {exact:.6g} in float32, {rounded:.6g} in bfloat16: {abs(rounded / exact - 1):.2e}")


def measure(arguments, folder: Path) -> dict:
    plugins = distillkit.load_plugins()
    model = distillkit.load_model(arguments.run, plugins)
    recipe = resolve(
        distillkit.Recipe.create(
            pair={"name": model.pair, **model.options},
            teacher=arguments.run / "model.safetensors",
            lmbda=model.lmbda,
            num_steps=10,
            losses=FEDS,
            schedule={"name": "feds.staged"},
            data={"train": arguments.data, "crop": arguments.crop, "batch_size": 1, "bad_images": "skip"},
        ),
        plugins,
    )
    run = RunFolder(folder / "run")
    run.open(recipe)
    setup = prepare(recipe, plugins)
    ranks = Ranks()
    setup.pair.teacher.module.to(ranks.device)
    setup.task.to(ranks.device).eval()
    calibrate("feds.channel_entropy", setup, recipe, run, ranks)
    roles = sorted(setup.pair.report.shapes.student)
    differences, norms = dict.fromkeys(roles, 0.0), dict.fromkeys(roles, 0.0)
    sums = {name: [0.0, 0.0] for name in FEDS}
    with torch.no_grad():
        for batch in batches(setup.dataset, 1, 0, arguments.crops):
            images = batch.to(ranks.device)
            exact = setup.pair.run_teacher(images, roles)
            with torch.autocast(ranks.device.type, torch.bfloat16):
                rounded = setup.pair.run_teacher(images, roles)
            for role in roles:
                differences[role] += float((rounded[role].float() - exact[role]).square().sum())
                norms[role] += float(exact[role].square().sum())
            for place, features in enumerate((exact, rounded)):
                losses = setup.task(images, features, list(FEDS))
                for name in FEDS:
                    sums[name][place] += float(losses.terms[name]) / arguments.crops
    taps = {role: (differences[role] / norms[role]) ** 0.5 for role in roles}
    return {"taps": taps, "losses": sums}


if __name__ == "__main__":
    main()
