"""A run that is asked to end, by a scheduler (SIGTERM) or a user (Ctrl-C): it ends after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final


class TrainingStopped(Exception):  # noqa: N818 - nothing went wrong
    """A run ended before its last step because it was asked to; a checkpoint of its last step is on disk."""


@final
@dataclass
class StopRequest:
    """Whether a stop was asked for, and whether by Ctrl-C."""

    made: bool = False
    by_user: bool = False


@contextmanager
def stop_on_signal() -> Generator[StopRequest]:
    """Turn SIGTERM and the first Ctrl-C into a request for as long as the context lasts; a second Ctrl-C acts at once.

    What handled the signals before handles them afterwards. Python delivers signals only to the main thread: in another
    one nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: Any) -> None:
        request.made = True
        if number == signal.SIGINT:
            request.by_user = True
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
