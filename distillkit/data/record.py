"""Which images a run trains on: recorded when it begins, compared when it continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from ..errors import TrainingError
from .images import ImageFile
from .shards import PackedImage

_FORMAT = "distillkit-data-1"
_NUM_NAMED = 3


@final
@dataclass(frozen=True)
class DataRecord:
    """The training files.

    Attributes:
        files: path from the data folder -> what is known of the file: `bytes`, its size; `time_ns`, when it was last
            changed; `sha256`, of its content, if asked for; `images`, of a shard, a hash of the names and places of its
            images.
    """

    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[ImageFile], folder: Path, *, hashes: bool = False) -> DataRecord:
        """Return the record of training images.

        Args:
            paths: images, or images in shards.
            folder: the data folder.
            hashes: whether to read every file and hash it.

        Raises:
            TrainingError: a file has vanished since it was listed.
        """
        members: dict[Path, Any] = {}
        for path in paths:
            file = path.shard if isinstance(path, PackedImage) else Path(str(path))
            digest = members.setdefault(file, hashlib.sha256() if isinstance(path, PackedImage) else None)
            if isinstance(path, PackedImage):
                digest.update(f"{path.name}|{path.offset}|{path.num_bytes}\n".encode("utf-8", "surrogateescape"))
        files: dict[str, dict[str, Any]] = {}
        for file, digest in members.items():
            name = file.relative_to(folder) if file.is_relative_to(folder) else file
            try:
                status = file.stat()
                about: dict[str, Any] = {"bytes": status.st_size, "time_ns": status.st_mtime_ns}
                if hashes:
                    with file.open("rb") as opened:
                        about["sha256"] = hashlib.file_digest(opened, "sha256").hexdigest()
            except OSError as error:
                raise TrainingError(f"image {file}: cannot be read: {error.strerror}; start again.") from None
            if digest is not None:
                about["images"] = digest.hexdigest()
            files[_text(name)] = about
        return cls(files)

    @property
    def digest(self) -> str:
        """A hash of names, sizes and, where they are known, contents; dates do not count: 32 hexadecimal digits."""
        known = {name: {k: v for k, v in about.items() if k != "time_ns"} for name, about in self.files.items()}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]

    def changes(self, now: DataRecord) -> str:
        """Return what differs in `now`, as a phrase; empty if nothing does. Equal hashes make dates irrelevant."""
        kinds = {
            "added": sorted(now.files.keys() - self.files.keys()),
            "removed": sorted(self.files.keys() - now.files.keys()),
            "changed": [n for n in sorted(self.files.keys() & now.files) if _differ(self.files[n], now.files[n])],
        }
        return "; ".join(f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names)

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all.

        Raises:
            TrainingError: the file cannot be written.
        """
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps({"format": _FORMAT, "files": self.files}, indent=0), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise TrainingError(f"{path}: cannot be written: {error.strerror}; make room, and start again.") from None

    @classmethod
    def load(cls, path: Path) -> DataRecord | None:
        """Return the record in a file, or None if there is none.

        Raises:
            TrainingError: the file is damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or not all(isinstance(about, dict) for about in content["files"].values()):
                raise ValueError("another format")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TrainingError(
                f"{path}: damaged ({type(error).__name__}); remove it to continue without comparing the images."
            ) from None
        return cls(content["files"])


def check_data(file: Path, now: DataRecord, *, has_begun: bool) -> str | None:
    """Record a run's images when it begins; when it continues, compare them with that record.

    Args:
        file: of the record, in the run folder.
        now: the present images.
        has_begun: whether the run has results that depend on them.

    Returns:
        What the user should know, or None.

    Raises:
        TrainingError: they are others; says how many were added, removed and changed.
    """
    before = DataRecord.load(file) if has_begun else None
    if before is not None and (changes := before.changes(now)):
        raise TrainingError(
            f"run folder {file.parent}: the training images are not those with which the run began: {changes}. Bring "
            f"them back, or start a new run. If they were only copied, remove {file} to continue."
        )
    if before is None:
        now.save(file)
        return "the training images were not recorded when the run began; they are from now on" if has_begun else None
    return None


def _differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    keys = ["bytes", "images", "sha256" if "sha256" in before and "sha256" in now else "time_ns"]
    return any(before.get(key) != now.get(key) for key in keys)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NUM_NAMED]) + (", ..." if len(names) > _NUM_NAMED else "")


def _text(name: Path) -> str:
    return name.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
