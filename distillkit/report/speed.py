"""How long a codec takes for a picture, and which part of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, final

import numpy as np

from ..codec.runtime import ImageCodec

NUM_TIMED = 3


@final
@dataclass(frozen=True)
class CodingTime:
    """Seconds for one picture, whole files, median of three after a warm-up.

    Attributes:
        analysis: in the analysis transform (`g_a`), encoding.
        entropy_encode: the rest of encoding: entropy model, entropy coder, file.
        entropy_decode: the same when decoding.
        synthesis: in the synthesis transform (`g_s`), decoding.
    """

    analysis: float
    entropy_encode: float
    entropy_decode: float
    synthesis: float


def coding_time(codec: ImageCodec, picture: np.ndarray) -> CodingTime | None:
    """Time a codec on a uint8 picture (H, W, 3); None where its transforms are not modules called `g_a` and `g_s`."""
    rows = []
    with _Stopwatch(codec) as watch:
        for _ in range(NUM_TIMED + 1):
            start = perf_counter()
            data = codec.encode(picture)
            encode, analysis = perf_counter() - start, watch.take("g_a")
            watch.take("g_s")
            start = perf_counter()
            codec.decode(data)
            decode, synthesis = perf_counter() - start, watch.take("g_s")
            rows.append((analysis, encode - analysis, decode - synthesis, synthesis))
    timed = CodingTime(*(median(column) for column in zip(*rows[1:], strict=True)))
    return timed if timed.analysis and timed.synthesis else None


@final
class _Stopwatch:
    """Adds up the time that is spent in the modules `g_a` and `g_s` of a codec."""

    def __init__(self, codec: ImageCodec) -> None:
        self._module = codec.adapter.module
        self._hooks = ExitStack()
        self._seconds = {"g_a": 0.0, "g_s": 0.0}
        self._started = 0.0

    def __enter__(self) -> _Stopwatch:
        for name in self._seconds:
            module = getattr(self._module, name, None)
            if module is not None:
                self._hooks.callback(module.register_forward_pre_hook(self._start).remove)
                self._hooks.callback(module.register_forward_hook(self._stop(name)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def take(self, name: str) -> float:
        """Return the seconds since this was last asked."""
        seconds, self._seconds[name] = self._seconds[name], 0.0
        return seconds

    def _start(self, *_: Any) -> None:
        self._started = perf_counter()

    def _stop(self, name: str) -> Any:
        def hook(*_: Any) -> None:
            self._seconds[name] += perf_counter() - self._started

        return hook
