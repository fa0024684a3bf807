"""Train PRIM's recipes and mask decay beside their controls at `tiny` scale, and measure all on real files.

    python benchmarks/beside_controls.py --train photos/ --test kodak/ --out runs/beside-controls --seeds 0 1 2

The recipes are those of `distillkit recipes prim-tiny`. Each run takes one or two minutes of one CPU core; a run that
is done is not trained again. `beside-controls.json` in the folder has every figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

import torch

import distillkit
from distillkit.recipe.shipped import write_shipped

CONTROL = "control"


def recipes(folder: Path, train: Path, seeds: list[int]) -> dict[str, distillkit.Recipe]:
    """Return the runs by name, teachers first; the recipes lie in `folder`, and name runs in `folder / "runs"`."""
    if not (folder / "student.toml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_shipped("prim-tiny", folder)
    data = {"data.train": str(train.resolve())}
    runs = {name: distillkit.Recipe.load(folder / f"{name}.toml", changes=data) for name in ("teacher", "teacher-rate")}
    prim, hybrid = (
        distillkit.Recipe.load(folder / f"{name}.toml", changes=data) for name in ("student", "student-hybrid")
    )
    runs["teacher-own"] = runs["teacher"].model_copy(update={"lmbda": prim.lmbda})
    own = folder / "runs" / "teacher-own" / "model.safetensors"
    alone = {"losses": {}, "teacher": None, "schedule": distillkit.Recipe.model_fields["schedule"].get_default()}
    students = {
        CONTROL: prim.model_copy(update={"losses": {}, "teacher": None}),
        "prim": prim,
        "prim-hybrid": hybrid,
        "cut-at-once": prim.model_copy(update=alone | {"teacher": own, "initial_weights": "teacher"}),
        "mask-decay": prim.model_copy(update=alone | {"teacher": own, "extensions": {"kd.mask_decay": {}}}),
    }
    for seed in seeds:
        runs |= {f"{name}-{seed}": each.model_copy(update={"seed": seed}) for name, each in students.items()}
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--test", type=Path, required=True, help="folder of held-out pictures, PNG")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        name: distillkit.train(recipe, options.out / "runs" / name)
        for name, recipe in recipes(options.out, options.train, options.seeds).items()
    }
    compared = distillkit.compare(models, sorted(options.test.glob("*.png")), options.out / "comparison")
    found = {model.name: dict(model.evaluation.averages) for model in compared.models}
    (options.out / "beside-controls.json").write_text(json.dumps(found, indent=2) + "\n")
    runs: dict[str, list[dict[str, float]]] = {}
    for name, averages in found.items():
        variant, _, seed = name.rpartition("-")
        runs.setdefault(variant if seed.isdigit() else name, []).append(averages)
    print("| run | seeds | bpp | PSNR in dB | RD cost | against the control |\n|---|---:|---:|---:|---:|---|")
    for variant, rows in runs.items():
        gains = "-"
        if len(rows) == len(runs[CONTROL]) and variant not in (CONTROL, "teacher", "teacher-rate", "teacher-own"):
            changes = [100 * (a["rd_cost"] / b["rd_cost"] - 1) for a, b in zip(rows, runs[CONTROL], strict=True)]
            gains = f"{fmean(changes):+.1f} % ({min(changes):+.1f} to {max(changes):+.1f})"
        means = (fmean(row[key] for row in rows) for key in ("rate_bpp", "psnr_db", "rd_cost"))
        rate_bpp, psnr_db, rd_cost = means
        print(f"| {variant} | {len(rows)} | {rate_bpp:.3f} | {psnr_db:.2f} | {rd_cost:.3f} | {gains} |")


if __name__ == "__main__":
    main()
