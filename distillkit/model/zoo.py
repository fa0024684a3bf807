"""Trained models that ship with distillkit: `load_model("zoo:NAME")`, and their manifest.

Each is a small codec trained on a CPU core in an hour or so: better than WebP, and no match for published codecs.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, did_you_mean

PREFIX = "zoo:"  #: of a model's name where a file may be named, too
MANIFEST = "manifest.json"


def manifest() -> dict[str, dict[str, Any]]:
    """Return what is known of each model by its name: file, fingerprint, recipe, training data, what it measured."""
    return json.loads(_folder().joinpath(MANIFEST).read_text(encoding="utf-8"))


def located(model: str | Path) -> Path:
    """Return the file or folder that a model's name means: itself, or the file of `zoo:NAME`."""
    return find(str(model)) if str(model).startswith(PREFIX) else Path(model)


def find(name: str) -> Path:
    """Return the file of a model, given as `zoo:NAME`.

    Raises:
        CheckpointError: there is no such model.
    """
    models, short = manifest(), name.removeprefix(PREFIX)
    if short not in models:
        hint = did_you_mean(short, models)
        raise CheckpointError(f"model {name}: no such model; there are {', '.join(map(PREFIX.__add__, models))}.{hint}")
    return _folder() / models[short]["file"]


def _folder() -> Path:
    return Path(str(files("distillkit") / "model" / "zoo"))
