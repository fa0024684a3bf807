"""What loss terms measure before their phase: once a run, on the first process, kept in the run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...data.crops import CALIBRATION_SEED, batches
from ...errors import TrainingError
from ...model.conditioned import FIXED_POINTS, ConditionedAdapter, at_quality
from ...recipe.recipe import Recipe
from ..distributed import Ranks
from ..folder.run_folder import RunFolder
from ..losses import Calibration
from ..setup.prepare import Setup


def calibrate(name: str, setup: Setup, recipe: Recipe, run: RunFolder, ranks: Ranks) -> None:
    """Give a loss term its record: the stored one if it was measured on this teacher with this configuration."""
    term = setup.task.term(name)
    record = ranks.first(lambda: _stored(name, setup, run) or _measure(name, setup, recipe, run, ranks))
    term.load_calibration(record)


def _about(name: str, setup: Setup) -> dict[str, Any]:
    config = json.loads(setup.task.term(name).config.model_dump_json())
    return {"term": name, "config": config, "teacher_fingerprint": setup.fingerprints[setup.task.teacher_of[name]]}


def _stored(name: str, setup: Setup, run: RunFolder) -> dict[str, Any] | None:
    about = _about(name, setup)
    try:
        stored = json.loads(run.calibration(name).read_text(encoding="utf-8"))
        if {key: stored[key] for key in about} != about:
            return None
        setup.task.term(name).load_calibration(stored["record"])
    except Exception:  # of the term's own code, too: the file is not there, or damaged, so it is measured again
        return None
    return stored["record"]


def _measure(name: str, setup: Setup, recipe: Recipe, run: RunFolder, ranks: Ranks) -> dict[str, Any]:
    teacher_name = setup.task.teacher_of[name]
    teacher = setup.task.pairs[teacher_name].teacher
    size = recipe.data.batch_size // (ranks.num * recipe.accumulate)  # what fits in the memory of one process
    dataset = setup.dataset.with_seed(recipe.seed + CALIBRATION_SEED)

    def run_teacher(images: Tensor, quality: float | None = None) -> Any:
        images = images.to(ranks.device).contiguous()
        own = None if quality is None else images.new_full((len(images),), quality)
        with torch.no_grad():
            return at_quality(teacher, setup.rates.for_teacher(teacher_name, own, images, teacher)).forward(images)

    def crops(num_crops: int) -> Iterator[Tensor]:
        return batches(dataset, size, 0, math.ceil(num_crops / size))

    qualities = FIXED_POINTS if isinstance(setup.codec, ConditionedAdapter) else ()
    record = setup.task.term(name).calibrate(Calibration(run_teacher, crops, qualities))
    path = run.calibration(name)
    text = json.dumps({**_about(name, setup), "record": record}, indent=1)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written: {error.strerror}; make room, or fix the permissions, and continue."
        ) from None
    return json.loads(text)["record"]
