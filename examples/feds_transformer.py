"""Apply FEDS to transformer codecs, within one architecture or across two.

    python examples/feds_transformer.py                           # a Swin teacher and a Swin student, some minutes
    python examples/feds_transformer.py --student models.cheng2020    # a convolutional student of the same teacher
    python examples/feds_transformer.py --teacher models.cheng2020    # and the other way round
    python examples/feds_transformer.py --data ~/photos --size lite

The losses and the three phases are those of `feds_cheng2020.py`, unchanged: they know nothing of a codec but its taps,
which are found by the resolution at which each block's output stands.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

import distillkit
from distillkit.demo import gather_images

PAIRS = ("models.swin", "models.cheng2020")
# Steps of teacher and student, batch size.
SCALES = {"tiny": (1500, 900, 4), "lite": (4000, 1400, 8), "paper": (2_000_000, 2_000_000, 8)}


def recipe(pair: str, part: str, size: str, train: Path, **more: Any) -> distillkit.Recipe:
    """One run: which codec it trains, on what, how, for how long."""
    *steps, batch_size = SCALES[size]
    few = {"name": "soap", "learning_rate": 3e-3, "rate_schedule": "cosine", "warmup_steps": 100}
    return distillkit.Recipe.create(
        trains=part,
        pair={"name": pair, "size": size},
        num_steps=steps[part == "student"],
        data={"train": train, "crop": 256 if size == "paper" else 128, "batch_size": batch_size, "convert": True},
        optimizer={"name": "adam", "learning_rate": 1e-4} if size == "paper" else few,
        log_every=20,
        checkpoint_every=200,
        **more,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil transformer codecs with FEDS.")
    parser.add_argument("--teacher", choices=PAIRS, default=PAIRS[0], help="pair of the teacher")
    parser.add_argument("--student", choices=PAIRS, default=PAIRS[0], help="pair of the student")
    parser.add_argument("--data", type=Path, help="folder of your own images; every tenth is held out")
    parser.add_argument("--size", choices=SCALES, default="tiny")
    parser.add_argument("--out", type=Path, help="folder of the runs [runs/feds-transformer-...]")
    arguments = parser.parse_args()
    names = "-".join(name.removeprefix("models.") for name in (arguments.teacher, arguments.student))
    out = arguments.out or Path("runs") / f"feds-transformer-{names}-{arguments.size}"
    feds = {
        "losses": {"feds.alignment": {}, "feds.channel_entropy": {}},
        "schedule": {
            "name": "feds.staged",
            "finetune_learning_rate": 0.1 if arguments.size == "paper" else 1.0,
            "every": 1 if arguments.size == "tiny" else 2,
        },
    }
    try:
        train, held_out = gather_images(out / "images", arguments.data)
        comparison = distillkit.distil_recipes(
            teacher=recipe(arguments.teacher, "teacher", arguments.size, train),
            student=recipe(arguments.student, "student", arguments.size, train, **feds),
            folder=out,
            images=held_out,
        )
    except distillkit.DistillkitError as error:
        sys.exit(f"error: {error}")
    Console().print(comparison.table())
    print(f"Everything is in {out}; the pictures side by side: {comparison.folder / 'comparison.png'}")


if __name__ == "__main__":
    main()
