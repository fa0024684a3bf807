"""Pools of processes that end when the one that started them does, however it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any


def start_pool(num: int, initializer: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """Return a pool whose processes are started afresh.

    If this process is killed (`kill -9` runs no clean-up), they would wait for ever; so each of them watches it.

    Args:
        num: processes.
        initializer: called in each before its first work.
        arguments: its arguments.
    """
    return ProcessPoolExecutor(num, get_context("spawn"), _start, (initializer, arguments))


def _start(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # this is a process of a pool
    parent.join()
    os._exit(1)
