"""How long a codec takes for a picture, and which part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Seconds for one picture by part, whole files, each the median of three after a warm-up.

    Attributes:
        encode: from pixels to the file's bytes.
        decode: from those to pixels.
    """

    encode: dict[str, float]
    decode: dict[str, float]


def coding_time(codec: ImageCodec, picture: np.ndarray) -> CodingTime | None:
    """Time a codec on a uint8 picture (H, W, 3); None where the parts cannot be told apart.

    They are those of the codec's own stopwatch, or else the time in modules called `g_a` and `g_s`, and the rest.
    """
    encode, decode = [], []
    with _Stopwatch(codec) as watch:
        for _ in range(NUM_TIMED + 1):
            data, parts = watch.time(lambda: codec.encode(picture))
            encode.append(parts)
            _, parts = watch.time(lambda data=data: codec.decode(data))
            decode.append(parts)
    timed = CodingTime(_medians(encode[1:]), _medians(decode[1:]))
    return timed if len(timed.encode) > 1 and len(timed.decode) > 1 else None


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {part: median(row.get(part, 0.0) for row in rows) for part in rows[0]}


@final
class _Stopwatch:
    def __init__(self, codec: ImageCodec) -> None:
        self._own: Any = getattr(codec, "stopwatch", None)
        self._module = codec.adapter.module
        self._hooks = ExitStack()
        self._seconds, self._started = 0.0, 0.0

    def __enter__(self) -> _Stopwatch:
        for name in ("g_a", "g_s") if self._own is None else ():
            module = getattr(self._module, name, None)
            if module is not None:
                self._hooks.callback(module.register_forward_pre_hook(self._start).remove)
                self._hooks.callback(module.register_forward_hook(self._stop).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def time(self, work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        """Return what `work` returns, and the seconds of each part."""
        self._seconds, start = 0.0, perf_counter()
        result = work()
        total = perf_counter() - start
        if self._own is not None:
            seconds: Mapping[str, float] = self._own.seconds
            return result, dict(seconds)
        parts = {"transform": self._seconds, "rest": total - self._seconds}
        return result, {part: seconds for part, seconds in parts.items() if seconds}

    def _start(self, *_: Any) -> None:
        self._started = perf_counter()

    def _stop(self, *_: Any) -> None:
        self._seconds += perf_counter() - self._started
