"""What a teacher's own training is worth to its student: three teachers, and students with FEDS and sliced out of them.

    python benchmarks/teacher_strength.py --train PHOTOS --test KODAK --out runs/strength

The teachers of `models.lowres`, `lite`, are trained for 500 and for 2000 steps at lambda .013; the third is
`zoo:lite-teacher`. Students have 1000 steps, and one is trained alone. Prints the RD cost on the test pictures by real
files. 40 minutes of one core; a run that is done is not trained again, one that was stopped continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import distillkit
from distillkit.evaluation.evaluate import evaluate

LMBDA = 0.013
ALONE = 3e-3  #: learning rate of random weights
SLICED = 1e-3  #: sliced weights lose their start at 3e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--test", type=Path, required=True, help="folder of held-out pictures, PNG")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=1000, help="of the students")
    parser.add_argument("--teacher-steps", type=int, nargs="+", default=[500, 2000])
    options = parser.parse_args()
    torch.set_num_threads(1)

    def trained(name: str, learning_rate: float, **changes: Any) -> Path:
        recipe = distillkit.Recipe.create(
            pair={"name": "models.lowres", "size": "lite"},
            lmbda=LMBDA,
            data={"train": options.train, "crop": 128, "batch_size": 8},
            optimizer={
                "name": "muon",
                "learning_rate": learning_rate,
                "rate_schedule": "cosine",
                "warmup_steps": 50,
            },
            checkpoint_every=100,
            **changes,
        )
        return distillkit.train(recipe, options.out / name)

    def cost(file: Path | str, name: str) -> float:
        model = distillkit.load_model(file)
        rates = model.lmbda
        codec = distillkit.ImageCodec(model.codec, model.fingerprint)
        return evaluate(
            codec,
            sorted(options.test.glob("*.png")),
            options.out / f"files-{name}",
            LMBDA,
            quality=rates.quality_of(LMBDA) if isinstance(rates, distillkit.LmbdaRange) else None,
        ).averages["rd_cost"]

    control = cost(trained("control", ALONE, num_steps=options.steps), "control")
    print(f"student alone: {control:.3f}\n", flush=True)
    print("| teacher | its RD cost | with FEDS | | sliced | |\n|---|---:|---:|---:|---:|---:|", flush=True)
    teachers: dict[str, Path | str] = {
        f"{steps} steps": trained(f"teacher-{steps}", 2e-3, trains="teacher", num_steps=steps)
        for steps in options.teacher_steps
    }
    for label, teacher in {**teachers, "zoo:lite-teacher": "zoo:lite-teacher"}.items():
        name = label.replace(" ", "-").replace(":", "-")
        feds = trained(
            f"feds-{name}",
            ALONE,
            num_steps=options.steps,
            teacher=teacher,
            losses={"feds.alignment": {}, "feds.channel_entropy": {}},
            schedule={"name": "feds.staged", "finetune_learning_rate": 1.0, "every": 2},
        )
        sliced = trained(f"sliced-{name}", SLICED, num_steps=options.steps, teacher=teacher, initial_weights="teacher")
        costs = cost(teacher, name), cost(feds, f"feds-{name}"), cost(sliced, f"sliced-{name}")
        gains = [f"{100 * (each / control - 1):+.1f} %" for each in costs[1:]]
        print(f"| {label} | {costs[0]:.3f} | {costs[1]:.3f} | {gains[0]} | {costs[2]:.3f} | {gains[1]} |", flush=True)


if __name__ == "__main__":
    main()
