"""Seconds of coding, after a warm-up, the codecs taking turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, final

import torch
from numpy.typing import NDArray

Direction = Literal["encode", "decode"]

#: Where the time of a learned codec goes, in the order of tables. Analysis includes the hyper-prior's; entropy networks
#: are those that choose the coder's tables; file is padding, pixels and the file's fields.
PARTS = ("analysis", "entropy networks", "coder", "synthesis", "file")


@final
@dataclass(frozen=True)
class Coder:
    """One codec at one setting, as it is timed.

    Attributes:
        encode: picture, uint8, shape (H, W, 3), RGB -> bytes.
        decode: bytes -> picture.
        seconds_by_part: where the time of the last call went, by part; empty where that is not known.
    """

    encode: Callable[[NDArray[Any]], bytes]
    decode: Callable[[bytes], NDArray[Any]]
    seconds_by_part: Callable[[], Mapping[Any, float]] = dict


@final
@dataclass(frozen=True)
class Run:
    """One timed call: its wall-clock seconds, in all and by part."""

    seconds: float
    parts: Mapping[str, float]


@final
@dataclass
class Timed:
    """What coding one picture several times gave.

    Attributes:
        data: the compressed file.
        decoded: the picture in it.
        runs: every timed call, by direction.
    """

    data: bytes
    decoded: NDArray[Any]
    runs: dict[Direction, list[Run]] = field(default_factory=lambda: {"encode": [], "decode": []})


@final
@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of seconds."""

    median: float
    lower_quartile: float
    upper_quartile: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Quartiles:
        """Return the spread of one number or more."""
        if len(seconds) == 1:
            return cls(seconds[0], seconds[0], seconds[0])
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, lower, upper)


@final
@dataclass(frozen=True)
class Latency:
    """Seconds of one direction over all pictures and repeats.

    Attributes:
        total: of the whole call, from pixels to bytes in memory, or back.
        parts: of each part of it; their medians need not add up to the total's.
        num_runs: how many calls were timed.
    """

    total: Quartiles
    parts: Mapping[str, Quartiles]
    num_runs: int

    @classmethod
    def of(cls, runs: Sequence[Run], names: Mapping[str, str]) -> Latency:
        """Return the latency of one timed call or more; `names` are other ones for parts."""
        parts = {names.get(p, p): Quartiles.of([run.parts.get(p, 0.0) for run in runs]) for p in runs[0].parts}
        return cls(Quartiles.of([run.seconds for run in runs]), parts, len(runs))


def warm_up(coder: Coder, image: NDArray[Any]) -> Timed:
    """Code a picture once, untimed: first calls allocate memory and choose kernels for the picture's size."""
    data = coder.encode(image)
    return Timed(data, coder.decode(data))


def time_by_turns(coders: Mapping[str, tuple[Coder, Timed]], image: NDArray[Any], repeats: int) -> None:
    """Code a picture `repeats` times with each coder in turn, so that all run on the machine in the same state.

    Args:
        coders: name -> coder, and what `warm_up` returned for it on this picture, to which the runs are added.
        image: uint8, shape (H, W, 3), RGB.
        repeats: timed calls of each.
    """
    for _ in range(repeats):
        for coder, timed in coders.values():
            timed.runs["encode"].append(_time(coder, coder.encode, image))
            timed.runs["decode"].append(_time(coder, coder.decode, timed.data))


def _time(coder: Coder, function: Callable[[Any], Any], argument: Any) -> Run:
    start = perf_counter()
    function(argument)
    return Run(perf_counter() - start, dict(coder.seconds_by_part()))


@contextmanager
def torch_threads(number: int) -> Generator[None]:
    """Have torch use this many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
