"""Divides a folder of photographs into those to train on and those held out for the test."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from .images import check_images
from .listing import list_images, mark_output


def hold_out(data: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Hold out every tenth picture of a folder (at least one, at most 24) by links under another one.

    Args:
        data: the user's own pictures.
        folder: gets the folders `train` and `held_out`.

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
    check_images(paths)  # all of them at once, by the names that the user knows
    held_out = paths[:: max(10, -(-len(paths) // 24))]
    return lay_out({"train": [path for path in paths if path not in held_out], "held_out": held_out}, folder, data)


def lay_out(groups: Mapping[str, Sequence[Path]], folder: Path, data: Path | None = None) -> tuple[Path, list[Path]]:
    """Link pictures into the folders `train` and `held_out` under `folder`.

    Args:
        groups: the pictures of each of the two.
        folder: where the two go.
        data: the folder of all pictures, whose subfolders are kept; without it all pictures of a group go into one
            folder.

    Returns:
        The training folder and the held-out files.

    Raises:
        DataError: `folder` holds files of the user's, or cannot be written.
    """
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


def _is_copy(path: Path, source: Path | None) -> bool:
    return source is not None and not path.samefile(source) and filecmp.cmp(path, source, shallow=False)


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
