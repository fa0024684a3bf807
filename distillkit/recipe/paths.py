"""Where the paths of a recipe lead: relative ones start from its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..model.zoo import PREFIX

if TYPE_CHECKING:
    from .recipe import Recipe

_OPTIONS = ("weights", "teacher")  #: options of pairs and objectives that name files


def from_folder(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the keys of a recipe with every relative path joined to `folder`.

    Anything else is left unchanged: names of models that ship (`zoo:...`), and what validation refuses.
    """
    placed = dict(recipe)
    if isinstance(teacher := recipe.get("teacher"), str):
        placed["teacher"] = _model(teacher, folder)
    if isinstance(teachers := recipe.get("teachers"), dict):
        placed["teachers"] = {
            name: _model(path, folder) if isinstance(path, str) else path for name, path in teachers.items()
        }
    if isinstance(weights := recipe.get("initial_weights"), str) and weights not in ("random", "teacher"):
        placed["initial_weights"] = _model(weights, folder)
    for key in ("pair", "objective", "schedule"):
        if isinstance(options := recipe.get(key), dict):
            placed[key] = _placed_options(options, folder)
    for key, inner in (("data", "train"), ("validation", "data")):
        settings = recipe.get(key)
        if isinstance(settings, dict) and isinstance(settings.get(inner), str):
            placed[key] = {**settings, inner: folder / settings[inner]}
    return placed


def _model(name: str, folder: Path) -> str | Path:
    return name if name.startswith(PREFIX) else folder / name


def _placed_options(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    placed = dict(options)
    for name, value in options.items():
        if isinstance(value, dict):
            placed[name] = _placed_options(value, folder)
        elif isinstance(value, list):
            placed[name] = [_placed_options(each, folder) if isinstance(each, dict) else each for each in value]
        elif name in _OPTIONS and isinstance(value, str) and not value.startswith(PREFIX):
            is_path = "/" in value or "." in value or (folder / value).exists()
            placed[name] = str(folder / value) if is_path else value
    return placed


def check_paths(recipe: Recipe, file: Path) -> None:
    """Check that what a recipe names exists.

    Args:
        recipe: read from `file`.
        file: in whose folder relative paths start.

    Raises:
        RecipeError: something does not; the message says where it was looked for.
    """
    for key, path in _paths(recipe):
        if not path.exists():
            first = "train the teacher first, or " if key.startswith("teacher") else ""
            raise RecipeError(
                f"recipe {file.name}: {key}: expected a file or folder, got nothing at {path}; {first}check the path. "
                f"Relative paths in a recipe, and --out, start from the recipe's folder, {file.resolve().parent}."
            )


def _paths(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    yield "data.train", recipe.data.train
    if recipe.validation:
        yield "validation.data", recipe.validation.data
    if recipe.teacher:
        yield "teacher", recipe.teacher
    for name, path in recipe.teachers.items():
        yield f"teachers.{name}", path
    if isinstance(recipe.initial_weights, Path):
        yield "initial_weights", recipe.initial_weights
