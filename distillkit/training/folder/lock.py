"""One program at a time in a run folder."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ...errors import TrainingError

NAME = ".lock"  #: of the file in the run folder; it says nothing by itself, the system knows who holds it


@contextmanager
def only_here(folder: Path) -> Generator[None]:
    """Hold the run folder as long as the context lasts.

    The lock is the operating system's: it ends with the process that holds it, however that ends, so a file that was
    left behind blocks nobody.

    Args:
        folder: the run folder; it is made if it does not exist.

    Raises:
        TrainingError: another program or thread holds it, or it cannot be written.
    """
    lock = FileLock(folder / NAME, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"run folder {folder}: another process trains in it; wait until it ends, or choose another folder."
        ) from None
    except NotImplementedError:
        raise TrainingError(
            f"run folder {folder}: its file system has no locks, so two processes could spoil one run; choose a folder "
            "on another disk."
        ) from None
    except OSError as error:
        raise TrainingError(
            f"run folder {folder}: cannot be written: {error.strerror}; choose another place."
        ) from None
    try:
        yield
    finally:
        lock.release()
