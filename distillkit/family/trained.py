"""A teacher that is trained already, as a run: its model is measured and shown like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..hooks.components import validate
from ..hooks.loader import Plugins
from ..model.file import load_model, model_file
from ..recipe.recipe import Recipe


def recipe_of_trained(model: str | Path, data: Any, plugins: Plugins) -> Recipe:
    """Return the recipe of a run that takes no steps and begins with this model.

    Args:
        model: its file, its run folder, or `zoo:NAME`; of any pair, and either of its codecs.
        data: training images of the recipe, which are not used.
        plugins: where the model's pair is registered.

    Raises:
        CheckpointError: it is missing, damaged or not a model.
        RecipeError: its pair is not registered, or the images are not valid.
    """
    file = model_file(model)
    trained = load_model(file, plugins)
    recipe = {
        "trains": trained.part,
        "pair": {"name": trained.pair, **trained.options},
        "initial_weights": file,
        "objective": trained.objective,
        "lmbda": trained.lmbda,
        "num_steps": 0,
        "data": data,
    }
    return validate(Recipe, recipe, f"teacher {file}")
