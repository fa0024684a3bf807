"""What `compress` and `decompress` read, and where they write: decided before the first file is coded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..codec.files import SUFFIX, Direction, target_suffix
from ..data.content import SUFFIXES
from ..data.listing import list_images
from ..data.stored import SUFFIXES as STORED
from ..errors import DataError
from .names import existing, named


def split_target(direction: Direction, names: Sequence[str]) -> tuple[list[Path], str | None]:
    """Return the sources and the target (None: beside each source) among the arguments of a command.

    The last of several is the target, as with `cp`, unless it is a source, too: a file that exists and whose suffix is
    that of one, as when a shell expands `*.png`.
    """
    *others, last = names
    suffixes = SUFFIXES if direction == "compress" else (SUFFIX,)
    if not others or (Path(last).is_file() and Path(last).suffix.lower() in suffixes):
        return [Path(name) for name in names], None
    return [Path(name) for name in others], last


def plan_files(
    direction: Direction, sources: Sequence[Path], target: str | Path | None, overwrite: bool
) -> list[tuple[Path, Path]]:
    """Return what to read and where to write it.

    Pictures go to PNG, or to TIFF where PNG does not have such samples.

    Args:
        direction: compress or decompress.
        sources: files, or folders, whose subfolders count.
        target: a folder, or the file of a single one; by default beside each source. It is a folder if it exists as
            one or ends with a slash, and for several sources always, where each folder keeps its name.
        overwrite: whether files that exist may be replaced; never a source.

    Raises:
        DataError: there is nothing to do, two files would go to one place, or a file would be overwritten.
    """
    pairs: list[tuple[Path, Path]] = []
    for source in sources if direction == "compress" else [existing(source, SUFFIX) for source in sources]:
        if source.is_dir():
            kept = Path(source.resolve().name) if len(sources) > 1 else Path()
            folder = source if target is None else Path(target) / kept
            found = list(_found(direction, source))
            places = ((path, folder / path.relative_to(source)) for path in found)
            pairs += [(path, place.with_suffix(target_suffix(direction, path))) for path, place in places]
        elif source.is_file():
            pairs.append((source, _target_of(direction, source, target, len(sources) > 1)))
        else:
            raise DataError(
                f"{direction} {source}: expected a file or a folder, got nothing there; check the path. Of several "
                "arguments the last is the target."
            )
    _check_targets(pairs, overwrite)
    return pairs


def _found(direction: Direction, folder: Path) -> Iterator[Path]:
    if direction == "compress":
        yield from list_images(folder)
        return
    paths = sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())
    if not paths:
        raise DataError(f"decompress {folder}: expected files that end in {SUFFIX}, got none; check the path.")
    yield from paths


def _target_of(direction: Direction, source: Path, target: str | Path | None, several: bool) -> Path:
    suffix = target_suffix(direction, source)
    name = source.with_suffix(suffix).name
    if target is None:
        if source.suffix.lower() == suffix:
            other = "decompress" if direction == "compress" else "compress"
            raise DataError(
                f"{direction} {source}: expected {'a picture' if other == 'decompress' else 'a compressed file'}, got "
                f"a name that ends in {suffix}; for such files there is `distillkit {other}`."
            )
        return source.with_name(name)
    path = Path(target)
    if path.is_dir() or str(target).endswith(("/", os.sep)):
        return path / name
    if several:
        if path.suffix.lower() == suffix or path.is_file():
            raise DataError(f"{direction}: expected a folder for several files, got {path}; name a folder last.")
        return path / name
    if direction == "decompress" and path.suffix.lower() in STORED and path.suffix.lower() != ".png":
        return path  # holds any samples
    return named(path, suffix, direction)


def _check_targets(pairs: Sequence[tuple[Path, Path]], overwrite: bool) -> None:
    taken: dict[Path, Path] = {}
    sources = {source.resolve() for source, _ in pairs}
    for source, target in pairs:
        place = target.resolve()
        if place in taken:
            raise DataError(f"file {source}: would go to {target}, as {taken[place]} does; rename one of them.")
        taken[place] = source
        if place in sources:
            raise DataError(f"file {target}: it is a source and would be overwritten; choose another target.")
    existing = [target for _, target in pairs if target.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise DataError(
            f"file {existing[0]}{more}: exists already and would be overwritten; choose another target or pass "
            "`--overwrite`."
        )
