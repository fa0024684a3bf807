"""Divides a folder of photographs into those to train on and those held out for the test."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .images import check_images, read_image, survey
from .listing import list_images, mark_output
from .samples import RGB, Samples


def hold_out(
    data: Path, folder: Path, *, convert: bool = False, skip: bool = False, samples: Samples = RGB
) -> tuple[Path, list[Path]]:
    """Hold out every tenth picture of a folder (at least one, at most 24) by links under another one.

    Args:
        data: the user's own pictures.
        folder: gets the folders `train` and `held_out`.
        convert: take other kinds of picture too, see `read_image`; of those held out, converted copies are written.
        skip: hold out none that cannot be used, and leave it to the training to leave them out.
        samples: of the codec.

    Returns:
        The training folder and the held-out files.

    Raises:
        DataError: there are fewer than two pictures, some cannot be used, or `folder` holds files of the user's.
    """
    data = data.expanduser()
    paths = list_images(data)
    if len(paths) < 2:
        raise DataError(
            f"images {data}: expected at least two (one is held out for the test), got {len(paths)}; add some."
        )
    usable = paths
    if skip:
        bad = {problem.path for problem in survey(paths, convert=convert, samples=samples).problems}
        usable = [path for path in paths if path not in bad]
    if not usable or not skip:  # all of them at once, by the names that the user knows
        check_images(paths, convert=convert, samples=samples)
    held_out = usable[:: max(10, -(-len(usable) // 24))]
    others = {problem.path for problem in survey(held_out, samples=samples).problems}
    groups = {"train": [path for path in paths if path not in held_out], "held_out": held_out}
    return lay_out(groups, folder, data, converted=[path for path in held_out if path in others], samples=samples)


def lay_out(
    groups: Mapping[str, Sequence[Path]],
    folder: Path,
    data: Path | None = None,
    *,
    converted: Collection[Path] = (),
    samples: Samples = RGB,
) -> tuple[Path, list[Path]]:
    """Link pictures into the folders `train` and `held_out` under `folder`.

    Args:
        groups: the pictures of each of the two.
        folder: where the two go.
        data: the folder of all pictures, whose subfolders are kept; without it all pictures of a group go into one
            folder.
        converted: pictures of which a converted copy is written (PNG), and no link.
        samples: that these are converted to.

    Returns:
        The training folder and the held-out files.

    Raises:
        DataError: `folder` holds files of the user's, or cannot be written.
    """
    targets = {
        folder / name / (source.relative_to(data) if data else source.name): source
        for name, sources in groups.items()
        for source in sources
    }
    targets = {_as_png(path) if source in converted else path: source for path, source in targets.items()}
    for path in [*(folder / "train").rglob("*"), *(folder / "held_out").rglob("*")]:
        if path.is_symlink():
            path.unlink()
        elif path.is_file() and not _is_copy(path, targets.get(path), converted, samples):
            raise DataError(
                f"folder {folder}: expected only links to pictures, made by an earlier run, got the file {path}; it is "
                "kept. Choose another folder for the runs with --out."
            )
    try:
        mark_output(folder)
        for target, source in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source not in converted:
                _link(source.resolve(), target)
            elif not target.exists():
                Image.fromarray(_converted(source, samples).squeeze()).save(target)
    except OSError as error:
        raise DataError(
            f"folder {folder}: cannot be written: {error.strerror}; choose another folder for the runs with --out."
        ) from None
    return folder / "train", list_images(folder / "held_out")


def _as_png(path: Path) -> Path:
    return path if path.suffix == ".png" else path.with_name(f"{path.name}.png")  # no name of another picture


def _converted(source: Path, samples: Samples) -> NDArray[Any]:
    return read_image(source, convert=True, samples=samples)


def _is_copy(path: Path, source: Path | None, converted: Collection[Path], samples: Samples) -> bool:
    if source is None or path.samefile(source):
        return False
    if source in converted:
        return np.array_equal(read_image(path, samples=samples), _converted(source, samples))
    return filecmp.cmp(path, source, shallow=False)


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
