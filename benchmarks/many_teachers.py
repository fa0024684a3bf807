r"""What teachers of one rate each gain for a `tiny` student of many rates, on real files.

    python benchmarks/rates.py zoo:lite-student --train photos/ --pictures kodak/ --out runs/rates --steps 500
    python benchmarks/many_teachers.py --train photos/ --test kodak/ --out runs/many-teachers \
        --teachers runs/rates/0.0018 runs/rates/0.0054 runs/rates/0.0161 runs/rates/0.0483

Each crop is taught by the teacher of the nearest lambda. Beside the student stands its control, without teachers. A run
that is done is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import distillkit

LOW, HIGH = 0.0018, 0.0483


def curve(name: str, models: tuple) -> distillkit.RDCurve:
    """Return the curve of one model over its qualities, whose rows are called `<name>-q<quality>`."""
    means = [model.evaluation.averages for model in models if model.name.startswith(f"{name}-q")]
    return distillkit.RDCurve(name, tuple(distillkit.RDPoint(each["rate_bpp"], each["psnr_db"]) for each in means))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--test", type=Path, required=True, help="folder of held-out pictures, PNG")
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="model files or run folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    control = distillkit.Recipe.create(
        pair={"name": "models.lowres", "size": "tiny", "gain_units": 4},
        lmbda={"low": LOW, "high": HIGH},
        num_steps=options.steps,
        data={"train": str(options.train), "crop": 128, "batch_size": 8},
        optimizer={"name": "muon", "learning_rate": 3e-3, "rate_schedule": "cosine", "warmup_steps": 30},
        schedule={"name": "feds.staged", "every": 2, "finetune_learning_rate": 1.0},
        log_every=50,
    )
    teachers = {f"t{number}": path for number, path in enumerate(options.teachers)}
    taught = control.model_copy(update={"losses": {"feds.alignment": {}}, "teachers": teachers})
    runs = {"control": control, "taught": taught}
    models = {name: distillkit.train(recipe, options.out / name) for name, recipe in runs.items()}
    models |= {name: options.teachers[number] for number, name in enumerate(teachers)}
    compared = distillkit.compare(models, sorted(options.test.glob("*.png")), options.out / "comparison").models
    print("| model | bpp | PSNR in dB | RD cost |\n|---|---:|---:|---:|")
    for model in compared:
        means = model.evaluation.averages
        print(f"| {model.name} | {means['rate_bpp']:.3f} | {means['psnr_db']:.2f} | {means['rd_cost']:.3f} |")
    result = distillkit.bd_rate(*(curve(name, compared) for name in runs))
    print(f"BD-rate of the taught student against the control: {result.rate_percent:+.1f} %")


if __name__ == "__main__":
    main()
