"""The demo: FEDS on the low-resolution pair, with photographs that come inside pip packages or with the user's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from .data.held_out import hold_out, lay_out
from .errors import DataError
from .recipe.recipe import Recipe
from .recipe.shipped import load_shipped

__all__ = ["SHOWN", "gather_images", "recipes"]

Size = Literal["tiny", "lite", "paper"]

#: Photographs inside packages: (package, path in it).
_TRAIN = [
    ("skimage", "data/coffee.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/motorcycle_right.png"),
    ("sklearn", "datasets/images/china.jpg"),
]
SHOWN = "zoo:lite-student"  #: the model that the demo shows at work
_HELD_OUT = [("skimage", "data/astronaut.png"), ("sklearn", "datasets/images/flower.jpg")]


def gather_images(folder: Path, data: Path | None = None) -> tuple[Path, list[Path]]:
    """Put training and held-out pictures into `folder`, and return the training folder and the held-out files.

    Args:
        folder: gets the folders `train` and `held_out`.
        data: the user's own images of any kind, see `hold_out`; by default the photographs inside scikit-image and
            scikit-learn.

    Raises:
        DataError: there are no images, too few, the packages are not installed, or `folder` holds files of the user's.
    """
    if data is not None:
        return hold_out(data, folder, convert=True)
    return lay_out({"train": [_packaged(*p) for p in _TRAIN], "held_out": [_packaged(*p) for p in _HELD_OUT]}, folder)


def recipes(size: Size, train: Path) -> tuple[Recipe, Recipe]:
    """Return the demo's recipes, the teacher's and the student's: those of the low-resolution pair that ship."""
    name = f"lowres-{size}"
    return _converting(load_shipped(name, "teacher", train)), _converting(load_shipped(name, "student", train))


def _converting(recipe: Recipe) -> Recipe:
    """Return the recipe for pictures of any kind: the user's own may be grey."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"convert": True})})


def _packaged(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds it without importing it
    file = Path(spec.origin).parent / path if spec and spec.origin else None
    if file is None or not file.is_file():
        found = "no such file" if file else "no such package"
        raise DataError(
            f"demo photographs: expected {path} inside package {package}, got {found}. Install them with "
            "`pip install 'distillkit-lic[demo]'`, or name a folder of your own with --data."
        )
    return file
