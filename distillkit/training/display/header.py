"""What a run is about to do, in a dozen lines: read before hours of computing, not after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...model.adapters import CodecAdapter
from ...model.complexity import kmac_per_pixel, num_parameters
from ...model.lmbda import LmbdaRange
from ...recipe.recipe import TEACHER, TOGETHER, Recipe
from ...recipe.settings import ComponentChoice
from ..distributed import Ranks
from ..phases import Phase
from ..setup.prepare import Setup


def header(recipe: Recipe, setup: Setup, folder: Path, ranks: Ranks, precision: str) -> tuple[tuple[str, str], ...]:
    """Return what a run does: pairs of a name and a text.

    Args:
        recipe: resolved.
        setup: what was built for it.
        folder: the run folder.
        ranks: the processes that train.
        precision: of the arithmetic, as it was chosen.
    """
    several = f" and {ranks.num - 1} more" if ranks.num > 1 else ""
    num_threads = torch.get_num_threads()
    threads = f", {num_threads} thread{'s' * (num_threads != 1)}" if ranks.device.type == "cpu" else ""
    pictures = len(setup.dataset.paths)
    lines = {
        "device": f"{ranks.device}{several}, {precision}{threads}",
        recipe.trains: f"{_choice(recipe.pair)}: {_size(setup.codec, recipe)}",
    }
    for name, pair in setup.task.pairs.items():
        file = (recipe.teacher or "of the pair") if name == TEACHER else recipe.teachers.get(name)
        file = file or f"{', '.join(map(str, recipe.teachers.values()))}, each crop the nearest by lambda"
        lines[name if name in (TEACHER, TOGETHER) else f"teacher {name}"] = f"{file}: {_size(pair.teacher, recipe)}"
    lines["pictures"] = (
        f"{pictures} picture{'s' * (pictures != 1)} in {recipe.data.train}; each step sees {recipe.data.batch_size} "
        f"crops of {recipe.data.crop}x{recipe.data.crop}"
    )
    if recipe.validation:
        lines["held out"] = f"{recipe.validation.data}, every {recipe.validation.every} steps"
    for name, pair in setup.task.pairs.items():
        shared = pair.report.shapes.student
        lines["taps" if name == TEACHER else f"taps {name}"] = f"{len(shared)} matched: {', '.join(shared)}"
    lines["objective"] = f"{_choice(recipe.objective)}, lambda {_lmbda(recipe.lmbda)}"
    names = {label: options.get("name", label) for label, options in recipe.losses.items()}
    losses = [label if name == label else f"{label} ({name})" for label, name in names.items()]
    lines["losses"] = ", ".join(losses) or "none"
    phases = ", ".join(f"{phase.name} {phase.num_steps}{_change(phase)}" for phase in setup.timeline.phases)
    lines["schedule"] = f"{recipe.schedule.name}: {phases}; {recipe.num_steps} steps in all"
    rate = recipe.optimizer
    lines["optimizer"] = f"{rate.name}, learning rate {rate.learning_rate:g}, {rate.rate.name}"
    return (*lines.items(), ("writes to", str(folder)))


def _change(phase: Phase) -> str:
    changes = {
        "crop": phase.crop,
        "batch": phase.batch_size,
        "objective": phase.objective and phase.objective["name"],
        "lambda": phase.lmbda and _lmbda(phase.lmbda),
        "surrogate": phase.surrogate,
        "in the teacher:": ", ".join(phase.graft) or None,
        "latents": "of the teacher" if phase.teacher_forcing else None,
    }
    named = [f"{name} {value}" for name, value in changes.items() if value is not None]
    return f" ({', '.join(named)})" if named else ""


def _size(codec: CodecAdapter, recipe: Recipe) -> str:
    modes = [(module, module.training) for module in codec.module.modules()]
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(cuda), torch.autocast(_device_type(codec), enabled=False):
        kmac = kmac_per_pixel(codec, recipe.data.crop)
    for module, training in modes:
        module.training = training
    return f"{num_parameters(codec.module) / 1e6:.3g} M parameters, {kmac:.3g} kMAC/pixel"


def _device_type(codec: CodecAdapter) -> str:
    return next(codec.module.parameters()).device.type


def _choice(choice: ComponentChoice) -> str:
    options = [f"{name}={_short(value)}" for name, value in choice.options.items() if value is not None]
    return f"{choice.name} ({', '.join(options)})" if options else choice.name


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _lmbda(lmbda: Any) -> str:
    return f"{lmbda.low:g} to {lmbda.high:g}" if isinstance(lmbda, LmbdaRange) else f"{lmbda:g}"
