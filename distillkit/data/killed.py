"""An error for decoding processes that were killed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..errors import DataError


@contextmanager
def killed_workers_reported(*lost: type[Exception]) -> Generator[None]:
    """Make a `DataError` of torch's error for a killed decoding process, which a signal raises at any line.

    Args:
        lost: other errors that mean that one was killed.
    """
    try:
        yield
    except (RuntimeError, *lost) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "training images: expected the processes that decode them to run, but one was killed, perhaps for lack of "
            f"memory ({' '.join(str(error).split())[:120]}). Checkpoints are kept: free memory or set data.num_workers "
            "lower, and give the same command again."
        ) from None
