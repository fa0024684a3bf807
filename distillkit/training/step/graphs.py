"""Work that a device records once and replays: CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol, final

import torch


class CannotCaptureError(Exception):
    """Work reads from the device, or depends on something that changes from step to step outside of tensors."""


class Graph(Protocol):
    """Work on static tensors, recorded by `capture` and done again by `replay`."""

    def capture(self, work: Callable[[], None]) -> None:
        """Record the work, and do it once.

        Raises:
            CannotCaptureError: it cannot be recorded; nothing was done.
        """
        ...

    def replay(self) -> None:
        """Do it again, with what its tensors hold now."""
        ...


_STREAMS: dict[torch.device, Any] = {}


@final
class CudaGraph:
    """A CUDA graph.

    Args:
        device: the GPU.
        pool: of memory, for graphs that never run at once.
    """

    def __init__(self, device: torch.device, pool: Any) -> None:
        self._device, self._pool = device, pool
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], None]) -> None:
        """Record the work on the current stream, which is not the default one, and replay it."""
        stream = torch.cuda.current_stream(self._device)
        torch.cuda.synchronize(self._device)
        # Threads that pin memory for the data may call CUDA meanwhile.
        modes: dict[str, Any] = {"pool": self._pool, "capture_error_mode": "thread_local"}
        try:
            with torch.cuda.graph(self._graph, stream=stream, **modes):
                work()
        except RuntimeError as error:
            torch.cuda.synchronize(self._device)
            raise CannotCaptureError(str(error).strip().partition("\n")[0]) from error
        self.replay()

    def replay(self) -> None:
        """Do it again."""
        self._graph.replay()


@contextmanager
def beside(device: torch.device) -> Generator[None]:
    """Run on a stream on which work can be recorded, always the same one: what steps leave behind is bound to it."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.current_stream(device)
    stream = _STREAMS.setdefault(device, torch.cuda.Stream(device))
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)


def graphs_of(device: torch.device) -> Callable[[], Callable[[], Graph]] | None:
    """Return what begins a set of graphs on a device; None where there are none.

    A set is a function that makes its graphs. They share their memory, which torch gives back with the last of them, so
    that a set whose graphs were dropped makes no others.
    """

    def begin() -> Callable[[], Graph]:
        pool = torch.cuda.graph_pool_handle()
        return lambda: CudaGraph(device, pool)

    return begin if device.type == "cuda" else None
