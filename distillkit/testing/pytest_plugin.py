"""Fixtures for the tests of a plugin; pytest finds them through an entry point.

They are loaded in every project whose environment has distillkit, so nothing slow is imported before one is used, and
every name starts with `distillkit_`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..recipe.recipe import Recipe
    from ..taps.pair import CodecPair


@pytest.fixture(scope="session")
def distillkit_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three small colourful pictures, 128x96 pixels."""
    return draw_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def distillkit_pair() -> CodecPair:
    """Return the pair `models.cheng2020` at its smallest; `build_teacher()` and `build_student()` give its codecs."""
    from ..hooks.loader import load_plugins

    pair, config = load_plugins().configure("pair", "models.cheng2020", {"size": "tiny"}, "distillkit_pair")
    return pair(config)


@pytest.fixture(scope="session")
def distillkit_recipe(distillkit_photographs: Path) -> Callable[..., Recipe]:
    """Return a function that builds the recipe of a short run of that pair; its arguments replace keys."""
    from ..recipe.recipe import Recipe

    def build(**changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "pair": {"name": "models.cheng2020", "size": "tiny"},
            "num_steps": 3,
            "data": {"train": distillkit_photographs, "crop": 64, "batch_size": 2},
            "device": "cpu",
            "log_every": 1,
        }
        return Recipe.create(**(values | changes))

    return build


@pytest.fixture(scope="session")
def distillkit_teacher(tmp_path_factory: pytest.TempPathFactory, distillkit_recipe: Callable[..., Recipe]) -> Path:
    """Return the file of that pair's teacher after two steps of training: name it as a recipe's `teacher`."""
    from ..training.train import train

    return train(distillkit_recipe(trains="teacher", num_steps=2), tmp_path_factory.mktemp("teacher") / "run")


def draw_photographs(folder: Path) -> Path:
    """Draw three smooth pictures with edges into `folder`."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[0:96, 0:128]
    for number in range(3):
        waves = [np.sin((number + 2) * x / (11 + c) + c) + np.cos(y / (7 + number + c)) for c in range(3)]
        picture = np.stack(waves, axis=2) * 50 + 128 + 40 * ((x + y * (number + 1)) % 61 < 20)[..., None]
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return folder
