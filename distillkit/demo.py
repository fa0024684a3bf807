"""The demo: FEDS on the low-resolution pair, with photographs that come inside pip packages or with the user's own."""

from __future__ import annotations

import filecmp
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Literal

from .data.images import check_images
from .data.listing import list_images, mark_output
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
    """Lay out training and held-out pictures under `folder`, and return the training folder and the held-out files.

    Args:
        folder: gets the folders `train` and `held_out`.
        data: the user's own images, of which every tenth (at least one, at most 24) is held out; by default the
            photographs inside scikit-image and scikit-learn.

    Raises:
        DataError: there are no images, too few, the packages are not installed, or `folder` holds files of the user's.
    """
    if data is None:
        groups = {"train": [_packaged(*p) for p in _TRAIN], "held_out": [_packaged(*p) for p in _HELD_OUT]}
    else:
        data = data.expanduser()
        paths = list_images(data)
        if len(paths) < 2:
            raise DataError(
                f"images {data}: expected at least two (one is held out for the test), got {len(paths)}; add some."
            )
        check_images(paths)  # all of them at once, by the names that the user knows
        held_out = paths[:: max(10, -(-len(paths) // 24))]
        groups = {"train": [path for path in paths if path not in held_out], "held_out": held_out}
    targets = {
        folder / name / (source.relative_to(data) if data else source.name): source.resolve()
        for name, sources in groups.items()
        for source in sources
    }
    for path in [*(folder / "train").rglob("*"), *(folder / "held_out").rglob("*")]:
        if path.is_symlink():
            path.unlink()
        elif path.is_file() and not _is_copy(path, targets.get(path)):
            raise DataError(
                f"folder {folder}: expected only links to pictures, made by an earlier run, got the file {path}; it is "
                "kept. Choose another folder for the runs with --out."
            )
    try:
        mark_output(folder)
        for target, source in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
    except OSError as error:
        raise DataError(
            f"folder {folder}: cannot be written: {error.strerror}; choose another folder for the runs with --out."
        ) from None
    return folder / "train", list_images(folder / "held_out")


def recipes(size: Size, train: Path) -> tuple[Recipe, Recipe]:
    """Return the demo's recipes, the teacher's and the student's: those of the low-resolution pair that ship."""
    name = f"lowres-{size}"
    return load_shipped(name, "teacher", train), load_shipped(name, "student", train)


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


def _is_copy(path: Path, source: Path | None) -> bool:
    return source is not None and not path.samefile(source) and filecmp.cmp(path, source, shallow=False)


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
