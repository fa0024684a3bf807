"""Distil a Cheng2020 codec with FEDS, and show on real files what that gains.

    python examples/feds_cheng2020.py                       # minutes on two cores, on photographs from pip packages
    python examples/feds_cheng2020.py --data ~/photos       # your own images; every tenth is held out
    python examples/feds_cheng2020.py --data ~/photos --size lite

First it shows a trained student at work, in seconds. Then it trains a large teacher, and the same small student twice
with equal steps: without distillation (the control), and with FEDS's three phases. Each codec compresses the held-out
pictures to files and decodes them. At size `tiny` control and student are trained from three seeds. Run it again after
an interruption: it continues where it was. `distillkit demo` is such a job with `models.lowres`, which trains faster.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

import distillkit
from distillkit.demo import SHOWN, gather_images

# J = LMBDA * 255^2 * MSE + bits per pixel: larger means better pictures and larger files.
LMBDA = 0.013

# Steps of teacher and student, their learning rates, warm-up steps, crops (side, number). SOAP needs far fewer steps
# than Adam; `paper` keeps the Adam at a constant 1e-4, then a tenth of it, of the literature.
SCALES: dict[str, dict[str, Any]] = {
    "tiny": {"steps": (1500, 900), "optimizer": "soap", "rates": (6e-3, 6e-3), "warmup": 100, "crops": (128, 4)},
    "lite": {"steps": (12_000, 12_000), "optimizer": "soap", "rates": (3e-3, 6e-3), "warmup": 200, "crops": (128, 8)},
    "paper": {"steps": (2_000_000,) * 2, "optimizer": "adam", "rates": (1e-4, 1e-4), "warmup": 0, "crops": (256, 8)},
}


def recipe(size: str, train: Path, part: str, **more: Any) -> distillkit.Recipe:
    """One run: which codec it trains, on what, how, for how long."""
    scale = SCALES[size]
    index = 0 if part == "teacher" else 1
    return distillkit.Recipe.create(
        trains=part,
        pair={"name": "models.cheng2020", "size": size},  # `distillkit pairs` lists what is there
        lmbda=LMBDA,
        num_steps=scale["steps"][index],
        data={"train": train, "crop": scale["crops"][0], "batch_size": scale["crops"][1], "convert": True},
        optimizer={
            "name": scale["optimizer"],
            "learning_rate": scale["rates"][index],
            "rate_schedule": "constant" if size == "paper" else "cosine",
            "warmup_steps": scale["warmup"],
        },
        log_every=100 if size == "paper" else 20,
        checkpoint_every=5000 if size == "paper" else 200,
        **more,
    )


def feds(size: str) -> dict[str, Any]:
    """FEDS is two losses and a schedule; `distillkit plugins` lists them; docstrings have formulas and options."""
    return {
        "losses": {
            "feds.alignment": {"taps": ["analysis.*", "latent", "synthesis.*"]},
            "feds.channel_entropy": {"select": "keep", "keep": 0.95},
        },
        "schedule": {
            "name": "feds.staged",
            # A cosine already ends with low rates; a constant rate is cut to a tenth in the third phase.
            "finetune_learning_rate": 0.1 if size == "paper" else 1.0,
            # The teacher in every second step costs half; where minutes count, in each.
            "every": 1 if size == "tiny" else 2,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil a Cheng2020 codec with FEDS.")
    parser.add_argument("--data", type=Path, help="folder of your own images")
    parser.add_argument("--size", choices=SCALES, default="tiny")
    parser.add_argument("--out", type=Path, help="folder of the runs [runs/feds-cheng2020-SIZE]")
    arguments = parser.parse_args()
    out = arguments.out or Path("runs") / f"feds-cheng2020-{arguments.size}"
    try:
        train, held_out = gather_images(out / "images", arguments.data)
        print(f"A student that ships ({SHOWN}) at work on the held-out pictures:")
        look = distillkit.first_look(SHOWN, held_out, out / "first-look")
        Console().print(look.table())
        print(f"The pictures side by side: {look.picture}\nNow a teacher, a control and a student are trained:")
        teacher = recipe(arguments.size, train, "teacher")
        student = recipe(arguments.size, train, "student", **feds(arguments.size))
        comparison = distillkit.distil_recipes(teacher, student, folder=out, images=held_out)
        Console().print(comparison.table())
        if arguments.size == "tiny":  # one seed says little about so short a training
            print(distillkit.repeat_with_seeds(comparison, student, held_out))
    except distillkit.DistillkitError as error:
        sys.exit(f"error: {error}")
    print(f"The pictures side by side: {comparison.folder / 'comparison.png'}")
    print(f"The whole job as a page: {distillkit.write_page(out)}")

    # The student alone, from its file, in two lines: this is what you deploy.
    codec = distillkit.load_codec(out / "student")
    print(f"{held_out[0].name}: {len(codec.encode(distillkit.read_image(held_out[0])))} bytes")


if __name__ == "__main__":
    main()
