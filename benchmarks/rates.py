"""One model of many rates beside one model for each rate, all trained alike, and its rate control.

    python benchmarks/rates.py MODEL --train PHOTOS --pictures KODAK --out runs/rates --steps 1200

MODEL is a trained `models.lowres` student of one rate, from which all start. The model of many rates and each of those
of one rate train for the same steps, with the same seed and crops. Then all compress the pictures at four lambdas, and
the model of many rates compresses them to rates and qualities that are asked for. Runs that are finished are not
trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import distillkit

LOW, HIGH = 0.0018, 0.0483
QUALITIES = (0.0, 1 / 3, 2 / 3, 1.0)
TARGETS = {"bpp": (0.25, 0.5, 1.0), "psnr": (30.0, 33.0, 36.0)}


def recipe(model: distillkit.TrainedModel, file: str, train: Path, steps: int, lmbda: Any) -> distillkit.Recipe:
    """Return the recipe of a model of one rate, or, for a range of lambdas, of many."""
    gains = {"gain_units": 6} if isinstance(lmbda, dict) else {}
    return distillkit.Recipe.create(
        pair={"name": model.pair, **model.options, **gains},
        lmbda=lmbda,
        num_steps=steps,
        checkpoint_every=200,
        initial_weights=file,
        data={"train": str(train), "crop": 128, "batch_size": 8},
        optimizer={
            "name": "muon",
            "learning_rate": 2e-3,
            "rate_schedule": "cosine",
            "warmup_steps": min(100, steps // 10),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the trained codec of one rate that all start from: a model file")
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of held-out pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of rates.json")
    parser.add_argument("--steps", type=int, default=1200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = distillkit.load_model(args.model)
    lmbdas = [LOW * (HIGH / LOW) ** quality for quality in QUALITIES]
    wanted = {"many": {"low": LOW, "high": HIGH}} | {f"{lmbda:.4f}": lmbda for lmbda in lmbdas}
    for name, lmbda in wanted.items():
        distillkit.train(recipe(start, args.model, args.train, args.steps, lmbda), args.out / name)


if __name__ == "__main__":
    main()
