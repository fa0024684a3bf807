"""Decoded pictures in memory, shared by the processes that need them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ..errors import DataError

_ALIGNED = 64  #: bytes at whose multiples a picture begins


class _Place(NamedTuple):
    """Where a picture lies in the file: its first byte, shape and type; one that was left out has an empty shape."""

    start: int
    shape: tuple[int, ...]
    dtype: str


@final
class PictureCache:
    """Pictures, each of shape (C, H, W), or None for one that was left out.

    They lie in this process's memory until the cache is pickled, for a process that is started afresh. Then they move
    into a temporary file, which both map: nothing is copied, and the system keeps each byte once.

    Args:
        pictures: in the order of their numbers.
    """

    def __init__(self, pictures: Sequence[NDArray[Any] | None]) -> None:
        self._pictures = list(pictures)
        self._file: Path | None = None
        self._places: list[_Place] = []
        self._made: weakref.finalize[..., PictureCache] | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._pictures)

    def __getitem__(self, index: int) -> NDArray[Any] | None:
        """Return one."""
        return self._pictures[index]

    def __getstate__(self) -> dict[str, Any]:
        """Return where the pictures lie."""
        if self._file is None:
            handle, name = tempfile.mkstemp(prefix="distillkit-pictures-")
            os.close(handle)
            self.move_to(Path(name))
            self.remove_later(Path(name))
        return {"_file": self._file, "_places": self._places}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map them."""
        file, places = state["_file"], state["_places"]
        self._file, self._places, self._made = file, places, None
        self._pictures = _mapped(file, places)

    def close(self) -> None:
        """Remove the file, if this process has made it; who has mapped it keeps it."""
        if self._made is not None:
            self._made()

    def remove_later(self, *files: Path) -> None:
        """Remove files once the cache is closed, or not needed any more."""
        self._made = weakref.finalize(self, _remove, *files)

    def move_to(self, file: Path) -> None:
        """Write the pictures to a file, and have them lie there.

        Raises:
            DataError: it cannot be written.
        """
        places, start = [], 0
        try:
            with file.open("wb") as out:
                for picture in self._pictures:
                    values = np.empty(0, np.uint8) if picture is None else np.ascontiguousarray(picture)
                    out.write(bytes(start - out.tell()))
                    out.write(values.data)
                    places.append(_Place(start, () if picture is None else values.shape, values.dtype.str))
                    start += -(-values.nbytes // _ALIGNED) * _ALIGNED
        except OSError as error:
            raise DataError(
                f"training images: the processes that decode share pictures in {file.parent}, which cannot be written: "
                f"{error.strerror}; set TMPDIR to another folder, or lower data.cache_mib."
            ) from None
        self._file, self._places = file, places
        self._pictures = _mapped(file, places)


def cache_of_machine(key: Sequence[Any], make: Callable[[], PictureCache]) -> PictureCache:
    """Return a cache that all processes of one run on this machine share: the first one makes it, the others map it.

    Args:
        key: what it depends on, for the file's name; the same in all of them, and of this run alone.
        make: decodes the pictures.
    """
    name = hashlib.sha256(repr(list(key)).encode()).hexdigest()[:24]
    file = Path(tempfile.gettempdir()) / f"distillkit-pictures-{name}"
    index = file.with_name(f"{file.name}.json")
    lock = file.with_name(f"{file.name}.lock")
    with FileLock(lock):
        with suppress(OSError, ValueError):
            cache = PictureCache.__new__(PictureCache)
            places = [_Place(start, tuple(shape), dtype) for start, shape, dtype in json.loads(index.read_text())]
            cache.__setstate__({"_file": file, "_places": places})
            return cache
        cache = make()
        cache.move_to(file)
        index.write_text(json.dumps(cache.__getstate__()["_places"]))
        cache.remove_later(file, index, lock)
    return cache


def _mapped(file: Path, places: Sequence[_Place]) -> list[NDArray[Any] | None]:
    if not any(place.shape for place in places):
        return [None for _ in places]
    # Copy on write: torch wants arrays that may be written, and nobody does.
    whole = np.memmap(file, np.uint8, "c")
    return [_picture(whole, place) if place.shape else None for place in places]


def _picture(whole: NDArray[np.uint8], place: _Place) -> NDArray[Any]:
    dtype = np.dtype(place.dtype)
    num_bytes = int(np.prod(place.shape)) * dtype.itemsize
    return whole[place.start : place.start + num_bytes].view(dtype).reshape(place.shape)


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)  # who has mapped it keeps it
