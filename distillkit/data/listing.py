"""Which files of a folder are pictures: one rule for every command; what is left out is reported, with its count."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .content import SUFFIXES

_OUTPUT = ".distillkit-output"  #: lies in a folder of pictures that distillkit wrote
_THUMBNAILS = {"@eaDir", "__MACOSX", "$RECYCLE.BIN"}  # of other systems, which hide them
_NUM_NAMED = 5
_LOG = logging.getLogger("distillkit")


class Listing(NamedTuple):
    """The pictures of a folder.

    Attributes:
        paths: of the pictures, sorted by their place in the folder.
        left_out: what else is there, with its count, or an empty text.
    """

    paths: list[Path]
    left_out: str


def find_images(folder: Path, leave_out: Sequence[Path] = ()) -> Listing:
    """Return every picture under `folder`.

    A picture is a file whose suffix is one of `SUFFIXES`, in any case. Subfolders count, links to folders too, each
    folder once. Files and folders that are hidden (a name that begins with a dot, `@eaDir`, `__MACOSX`) do not count,
    nor do folders that distillkit itself filled with pictures (`mark_output`), except `folder`.

    Args:
        folder: where to look.
        leave_out: folders that do not count.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        raise DataError(f"images {folder}: expected a folder, got {got}; check the path.")
    others: Counter[str] = Counter()
    unwanted = {os.path.realpath(path) for path in leave_out}
    paths = [path for path in _files(folder, unwanted, others) if _is_picture(path, others)]
    named = ", ".join(f"{what} ({count})" for what, count in others.most_common(_NUM_NAMED))
    named += ", ..." if len(others) > _NUM_NAMED else ""
    if not paths:
        raise DataError(
            f"images {folder}: expected files that end in {', '.join(SUFFIXES)}, got none, subfolders included; "
            f"check the path or put images there.{' What is there is left out: ' if others else ''}{named}"
        )
    left_out = f"images {folder}: {others.total()} files or folders are left out: {named}" if others else ""
    return Listing(sorted(paths, key=lambda path: path.relative_to(folder).as_posix()), left_out)


def list_images(folder: Path, leave_out: Sequence[Path] = ()) -> list[Path]:
    """Return every picture under `folder` as `find_images` does; a warning says what is left out.

    Args:
        folder: where to look.
        leave_out: folders that do not count.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    paths, left_out = find_images(folder, leave_out)
    if left_out:
        _LOG.warning("%s", left_out)
    return paths


def mark_output(folder: Path) -> None:
    """Make `folder`, and mark it as written by distillkit: the pictures in it are results, not data.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / _OUTPUT
    if not mark.exists():
        mark.write_text("distillkit wrote this folder; its pictures are left out when a folder above it is searched.\n")


def _files(folder: Path, unwanted: set[str], others: Counter[str]) -> Iterator[Path]:
    """Yield the files under a folder, and count the folders that are left out.

    Links to folders come last, so that a folder with several names is met by its own.
    """
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            walk = os.walk(start, onerror=lambda _: others.update(["folders that cannot be read"]))
            for place, names, files in walk:
                real = os.path.realpath(place)
                if real in seen:
                    names.clear()
                    continue
                seen.add(real)
                names[:] = [name for name in names if _is_searched(Path(place, name), unwanted, others)]
                links += [Path(place, name) for name in names if os.path.islink(os.path.join(place, name))]
                yield from (Path(place, name) for name in files)
        waiting = sorted(links)


def _is_searched(folder: Path, unwanted: set[str], others: Counter[str]) -> bool:
    if folder.name.startswith(".") or folder.name in _THUMBNAILS:
        others["hidden folders"] += 1
    elif os.path.realpath(folder) in unwanted or (folder / _OUTPUT).exists():
        others["folders written by distillkit"] += 1
    else:
        return True
    return False


def _is_picture(path: Path, others: Counter[str]) -> bool:
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        others["hidden files"] += 1
    elif suffix not in SUFFIXES:
        others[suffix or "without a suffix"] += 1
    elif not path.is_file():
        others["broken links or special files"] += 1
    else:
        return True
    return False
