"""A job that a scheduler ends: SIGTERM asks for a stop, which comes after the step in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final


class TrainingStopped(Exception):  # noqa: N818 - nothing went wrong
    """A run ended before its last step because it was asked to; a checkpoint of its last step is on disk."""


@final
@dataclass
class StopRequest:
    """Whether a stop was asked for."""

    made: bool = False


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Turn SIGTERM into a request for as long as the context lasts; what handled it before handles it afterwards.

    Python hands signals to the main thread alone: in another one nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(*_: Any) -> None:
        request.made = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
