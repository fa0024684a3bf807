"""The recipes that ship: for each pair and size a teacher's and a student's, to be copied and changed."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import RecipeError, did_you_mean
from .recipe import Recipe
from .settings import ComponentChoice

if TYPE_CHECKING:
    from ..hooks.loader import Plugins

_FOLDER = resources.files("distillkit.recipe") / "shipped_recipes"


def shipped_recipes() -> dict[str, str]:
    """Return the names of the shipped sets of recipes (`cheng2020-tiny`), each with a line that says what it is."""
    return {name: _files(name)["student.toml"].partition("\n")[0].removeprefix("# ") for name in _names()}


def load_shipped(name: str, part: Literal["teacher", "student"], images: Path) -> Recipe:
    """Return a shipped recipe that trains on a folder of images; a student's `teacher` is left to be named.

    Raises:
        RecipeError: there is none of that name.
    """
    with resources.as_file(_FOLDER / _known(name) / f"{part}.toml") as path:
        recipe = Recipe.load(path)
    return recipe.model_copy(update={"teacher": None, "data": recipe.data.model_copy(update={"train": images})})


def load_for_pair(pair: str, size: str, part: Literal["teacher", "student"], images: Path, plugins: Plugins) -> Recipe:
    """Return a recipe for any registered pair: the one that ships, or that of `models.lowres` with another pair.

    Args:
        pair: its full name.
        size: of what ships: `tiny`, `lite` or `paper`; also the option `size` of the pair, if it has one.
        part: whose recipe.
        images: folder of the training images.
        plugins: where the pair is registered.

    Raises:
        RecipeError: there is no such pair or size, or its teacher is not trained but downloaded.
    """
    options = plugins.get("pair", pair, "distil, pair").Config.model_fields
    name = f"{pair.removeprefix('models.')}-{size}"
    ships = pair.startswith("models.") and name in _names()
    if not ships:
        recipe = load_shipped(f"lowres-{size}", part, images)
        own = {"name": pair} | ({"size": size} if "size" in options else {})
        # That the teacher's weights are a good start was measured on `models.lowres` alone.
        changes = {"pair": ComponentChoice.model_validate(own), "initial_weights": "random"}
        return recipe.model_copy(update=changes)
    if "teacher.toml" not in _files(name):
        raise RecipeError(
            f"distil, pair {pair}: its teacher of size {size} is downloaded, not trained; write its recipe with "
            f"`distillkit recipes {name}`, and train that."
        )
    return load_shipped(name, part, images)


def write_shipped(name: str, folder: Path) -> list[Path]:
    """Write the recipes of a set into a folder, and return them; no file is overwritten.

    Raises:
        RecipeError: there is none of that name, or a file is there already.
    """
    files = {folder / file: text for file, text in _files(_known(name)).items()}
    for path in files:
        if path.exists():
            raise RecipeError(
                f"recipes {name}: expected a folder without {path.name}, got {path}. Choose another --out."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"recipes {name}: {folder} cannot be written: {error.strerror}; choose another place."
        ) from None
    return list(files)


def _names() -> list[str]:
    return sorted(entry.name for entry in _FOLDER.iterdir())


def _known(name: str) -> str:
    if name not in (names := _names()):
        hint = did_you_mean(name, names) or f" There are {', '.join(names)}."
        raise RecipeError(f"recipes: no '{name}' ships.{hint}")
    return name


def _files(name: str) -> dict[str, str]:
    """Return the texts of a set's files, the teacher's first."""
    files = sorted((_FOLDER / name).iterdir(), key=lambda file: file.name, reverse=True)
    return {file.name: file.read_text(encoding="utf-8") for file in files}
