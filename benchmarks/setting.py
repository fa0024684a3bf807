"""What the benchmarks share: made-up photographs, and recipes of one pair at one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import distillkit

FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 8}}


def photographs(folder: Path, number: int = 4, side: int = 512) -> Path:
    """Fill a folder with synthetic pictures of some detail, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(number):
        coarse = Image.fromarray(generator.integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = generator.integers(-12, 13, (side, side, 3))
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{index:03d}.png")
    return folder


def common(size: str, images: Path, precision: str, crop: int = 128, batch_size: int = 8) -> dict[str, Any]:
    """Return the keys that teacher, student and control share; nothing is logged or saved within a run."""
    return {
        "pair": {"name": "models.cheng2020", "size": size},
        "data": {"train": images, "crop": crop, "batch_size": batch_size},
        "optimizer": {"name": "soap", "learning_rate": 1e-3},
        "precision": precision,
        "log_every": 1_000_000,
        "checkpoint_every": 1_000_000,
    }


def teacher(folder: Path, keys: dict[str, Any]) -> Path:
    """Return a teacher that was trained for one step: what it costs does not depend on what it knows."""
    return distillkit.train(distillkit.Recipe.create(trains="teacher", num_steps=1, **keys), folder / "teacher")


def student(
    num_steps: int, keys: dict[str, Any], teacher_file: Path | None, *, every: int = 1, **more: Any
) -> distillkit.Recipe:
    """Return the recipe of a student with FEDS, or of its control where there is no teacher.

    Args:
        num_steps: of the run.
        keys: what `common` returned.
        teacher_file: a teacher's model.
        every: the teacher runs in every N-th step.
        more: keys of the recipe.
    """
    taught = {"losses": FEDS, "teacher": teacher_file} if teacher_file else {}
    return distillkit.Recipe.create(
        num_steps=num_steps, schedule={"name": "feds.staged", "every": every}, **keys, **taught, **more
    )
