"""Codes many files at the same time; neither an unusable file nor a process that dies stops the others."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import final

from ..data.processes import start_pool
from ..errors import DistillkitError
from .files import Coded, Settings, code_file, load_codec
from .runtime import ImageCodec

_WORTH_SECONDS = 5.0  #: of work that is left: other processes, which need about as long to start, are worth it
_MOST_ON_GPU = 8  #: processes; each takes some hundred megabytes of the GPU's memory, and the model's weights
_Pair = tuple[Path, Path]


def code_files(
    settings: Settings, pairs: Sequence[_Pair], on_coded: Callable[[Coded], None], on_note: Callable[[str], None]
) -> list[Coded]:
    """Compress or decompress all files, on all cores if there are several, and return what became of each.

    Files are coded one after the other with torch's own threads, as long as that takes a few seconds. For more, each
    core codes one at a time with a single thread, so that no thread waits for another. On a GPU up to eight processes
    share it: while one codes symbols on its core, the others keep the GPU at work.

    Args:
        settings: what they have in common.
        pairs: source and target of each.
        on_coded: called as soon as a file is done, in any order.
        on_note: called with a note for the user on how the model codes, if there is one.

    Raises:
        DistillkitError: the model cannot be used.
    """
    codec = load_codec(settings)
    if codec.note is not None:
        on_note(codec.note)
    coded: dict[_Pair, Coded] = {}

    def note(result: Coded) -> None:
        coded[result.source, result.target] = result
        on_coded(result)

    waiting = deque(pairs)
    began = time.perf_counter()
    while waiting and (len(coded) < 2 or _seconds_left(began, len(coded), len(waiting)) < _WORTH_SECONDS):
        note(code_file(codec, settings, *waiting.popleft()))
    while waiting and _num_processes(settings) > 1:
        for pair in _code_with_others(codec, settings, waiting, note):
            note(_code_alone(settings, *pair))
    for pair in waiting:
        note(code_file(codec, settings, *pair))
    return [coded[pair] for pair in pairs]


def _seconds_left(began: float, done: int, left: int) -> float:
    return (time.perf_counter() - began) / done * left


def _code_with_others(
    codec: ImageCodec, settings: Settings, waiting: deque[_Pair], note: Callable[[Coded], None]
) -> list[_Pair]:
    """Empty `waiting` together with a process on each other core; this one codes, too, so their start costs no time.

    Returns:
        The files that were being coded when a process died, if one did; which of them caused it is not known.
    """
    import torch

    others, threads = _num_processes(settings) - 1, torch.get_num_threads()
    pool = start_pool(others, _Process.start, settings)
    torch.set_num_threads(1)
    running: dict[Future[Coded], _Pair] = {}
    try:
        while waiting or running:
            while waiting and len(running) < 2 * others:
                running[pool.submit(_Process.code, waiting[0])] = waiting[0]
                waiting.popleft()
            if waiting:
                note(code_file(codec, settings, *waiting.popleft()))
            for future in wait(running, 0 if waiting else None, FIRST_COMPLETED).done:
                note(future.result())
                del running[future]
    except BrokenProcessPool:
        for future in [future for future in running if future.done() and future.exception() is None]:
            note(future.result())
            del running[future]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    return list(running.values())


def _code_alone(settings: Settings, source: Path, target: Path) -> Coded:
    """Code one file in a separate process, which may die."""
    pool = start_pool(1, _Process.start, settings)
    try:
        return pool.submit(_Process.code, (source, target)).result()
    except BrokenProcessPool:
        text = "expected its process to finish, got one that was killed, perhaps for lack of memory; cut the picture"
        return Coded(source, target, error=f"file {source}: {text} into parts, or free memory.")
    finally:
        pool.shutdown()


def _num_processes(settings: Settings) -> int:
    return _num_cores() if settings.device == "cpu" else min(_num_cores(), _MOST_ON_GPU)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@final
class _Process:
    """What one process of the pool keeps from file to file."""

    codec: ImageCodec | None = None
    settings: Settings

    @classmethod
    def start(cls, settings: Settings) -> None:
        import torch

        torch.set_num_threads(1)
        cls.settings = settings

    @classmethod
    def code(cls, pair: _Pair) -> Coded:
        try:
            cls.codec = cls.codec or load_codec(cls.settings)
        except Exception as error:
            reason = str(error) if isinstance(error, DistillkitError) else f"{type(error).__name__}: {error}"
            return Coded(*pair, error=f"file {pair[0]}: its process could not load the model: {reason}")
        return code_file(cls.codec, cls.settings, *pair)
