"""Where the time of coding goes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, final

Part = Literal["transform", "entropy network", "coder", "file"]


@final
class Stopwatch:
    """Wall-clock seconds by part; a part inside another is not counted in the outer one, so that all add up.

    On a GPU work is counted where it is waited for: mostly in `coder`, and in `file` when decoding.

    Attributes:
        seconds: since the last `reset`, by part: `transform` (analysis, synthesis and hyper-analysis), `entropy
            network` (all that chooses the coder's tables), `coder` (symbols to bytes and back) and `file` (padding,
            pixels, the file's fields).
    """

    def __init__(self) -> None:
        self.seconds: dict[Part, float] = {}
        self._inside: list[Part] = []
        self._since = 0.0

    def reset(self) -> None:
        """Start again from 0."""
        self.seconds = {}

    @contextmanager
    def time(self, part: Part) -> Generator[None]:
        """Count what runs inside as `part`."""
        self._switch()
        self._inside.append(part)
        try:
            yield
        finally:
            self._switch()
            self._inside.pop()

    def _switch(self) -> None:
        now = perf_counter()
        if self._inside:
            part = self._inside[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now
