"""What each part of FEDS gains at the demo's scale, beside its controls.

python benchmarks/feds_controls.py runs/feds-cheng2020-tiny [--variants control feds ...] [--seeds 0 1 2]

Takes the teacher and pictures of a finished demo, and trains its student with equal steps, schedule and crops in each
variant and seed; a run that is there already is taken as it is. Prints mean and spread over seeds of the RD cost on
the held-out pictures, from file bytes, as `distillkit evaluate` measures them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

import distillkit
from distillkit.data.listing import list_images
from distillkit.demo import recipes

ALIGNMENT = {"feds.alignment": {}}
VARIANTS = {
    "control": {},
    "alignment": ALIGNMENT,
    "channel": {"feds.channel_entropy": {}},
    "random": {**ALIGNMENT, "feds.channel_entropy": {"select": "random"}},
    "lowest": {**ALIGNMENT, "feds.channel_entropy": {"select": "lowest"}},
    "feds": {**ALIGNMENT, "feds.channel_entropy": {}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of a finished demo")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/feds-controls"))
    parser.add_argument("--data", type=Path, help="pictures to measure on [the demo's held-out ones]")
    arguments = parser.parse_args()
    _, student = recipes("tiny", arguments.demo / "images" / "train")
    held_out = list_images(arguments.data or arguments.demo / "images" / "held_out")
    rows: dict[str, list[dict]] = {}
    for seed in arguments.seeds:
        for name in arguments.variants:
            losses = VARIANTS[name]
            teacher = arguments.demo / "teacher" / "model.safetensors" if losses else None
            recipe = student.model_copy(update={"losses": losses, "teacher": teacher, "seed": seed})
            folder = arguments.out / f"{name}-{seed}"
            result = distillkit.evaluate_model(distillkit.train(recipe, folder), held_out, folder / "evaluation")
            rows.setdefault(name, []).append(result.averages)
            print(f"{name} seed {seed}: RD cost {result.averages['rd_cost']:.3f}", flush=True)
    print(f"{'':10s} {'bpp':>7s} {'PSNR dB':>8s} {'RD cost':>8s} {'spread':>7s}   over {len(arguments.seeds)} seeds")
    for name, results in rows.items():
        costs = [row["rd_cost"] for row in results]
        rate, psnr = (fmean(row[key] for row in results) for key in ("rate_bpp", "psnr_db"))
        spread = f"{stdev(costs):7.3f}" if len(costs) > 1 else "      -"
        print(f"{name:10s} {rate:7.3f} {psnr:8.2f} {fmean(costs):8.3f} {spread}")


if __name__ == "__main__":
    main()
