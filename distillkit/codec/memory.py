"""How much memory coding takes, measured on small pictures before a large one is coded, and how much is free."""

from __future__ import annotations

import logging
import tracemalloc
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # torch's public way to see every operation
from torch.utils._pytree import tree_leaves

from .fast.tiles import TILE_PIXELS
from .fast.transforms import Transform
from .free import compare_with_free, free_ram

_TILE_PIXELS = int(1.25 * TILE_PIXELS) ** 2  # with its margins
_WORTH_REPORTING = 10**9  # bytes
_LOG = logging.getLogger("distillkit")
_SIDES = ((8, 8), (8, 16))  # rows and columns of the two pictures, in strides


@final
@dataclass(frozen=True)
class MemoryRule:
    """What coding takes, in bytes for each pixel.

    Attributes:
        whole: for each pixel of the picture.
        tiled: for each pixel that a transform sees in one piece.
        tile_pixels: the most that it sees at once; None where it sees the whole picture.
    """

    whole: float
    tiled: float
    tile_pixels: int | None

    def bytes_of(self, num_pixels: int) -> int:
        """Return about how many bytes coding a picture takes."""
        at_once = num_pixels if self.tile_pixels is None else min(num_pixels, self.tile_pixels)
        return int(self.whole * num_pixels + self.tiled * at_once)


@final
class CodingMemory:
    """What coding takes of memory, beside what the process holds already.

    Args:
        code: takes rows and columns, in strides; codes a picture of that size, both ways.
        transforms: modules that are run in tiles on large pictures.
        stride: of the codec in pixels.
    """

    def __init__(self, code: Callable[[int, int], object], transforms: Sequence[Transform], stride: int) -> None:
        self._code, self._transforms, self._stride = code, transforms, stride
        self._rule: MemoryRule | None = None
        self._measuring = False
        self._reported_bytes = 0

    def bytes_of(self, height: int, width: int) -> int:
        """Return about how many bytes a picture takes; measured at the first call."""
        if self._rule is None:
            self._measuring = True
            try:
                self._rule = _measure(self._code, self._transforms, self._stride)
            finally:
                self._measuring = False
        return self._rule.bytes_of(height * width)

    def problem(self, height: int, width: int, device: torch.device) -> str | None:
        """Return why a picture cannot be coded in the memory that is free, or None; warns of what a large one takes."""
        if self._measuring or height * width <= TILE_PIXELS**2:  # small in strides may be large in pixels
            return None
        needed, free = self.bytes_of(height, width), free_bytes(device)
        problem, takes = compare_with_free(height, width, needed, free)
        if problem is None and needed > max(self._reported_bytes, _WORTH_REPORTING):
            self._reported_bytes = needed
            _LOG.warning("%s", takes)
        return problem


def _measure(code: Callable[[int, int], object], transforms: Sequence[Transform], stride: int) -> MemoryRule:
    """Return the rule of a codec, from two small pictures."""
    peaks = []
    for rows, columns in _SIDES:
        with _watched(transforms) as watch:
            code(rows, columns)
        peaks.append((watch.peak, watch.peak_inside))
    num_pixels = (_SIDES[1][0] * _SIDES[1][1] - _SIDES[0][0] * _SIDES[0][1]) * stride**2
    whole, tiled = ((large - small) / num_pixels for small, large in zip(*peaks, strict=True))
    is_cut = all(transform.can_be_cut(_SIDES[1][0]) for transform in transforms)
    return MemoryRule(max(whole, 0.0), max(tiled, 0.0), _TILE_PIXELS if is_cut else None)


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory a device has left for this process, or None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_ram()


@final
class _Watch(TorchDispatchMode):
    """Counts the bytes of tensors that live, of those made since it was entered, and of arrays beside them.

    Attributes:
        peak: the most outside of the transforms.
        peak_inside: the most that one of them added.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.peak_inside = 0
        self._live = 0
        self._known: set[int] = set()
        self._entered: int | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self._note()
        return out

    def entered(self, inside: bool) -> None:
        self._note()
        self._entered = self._live if inside else None

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._live += size
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size

    def _note(self) -> None:
        if self._entered is None:
            self.peak = max(self.peak, self._live + tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
        else:
            self.peak_inside = max(self.peak_inside, self._live - self._entered)


@contextmanager
def _watched(transforms: Sequence[Transform]) -> Generator[_Watch]:
    watch, was_on = _Watch(), tracemalloc.is_tracing()
    hooks = [each.register_forward_pre_hook(lambda *_: watch.entered(True)) for each in transforms]
    hooks += [each.register_forward_hook(lambda *_: watch.entered(False)) for each in transforms]
    tracemalloc.start()
    try:
        with watch:
            yield watch
            watch.entered(False)
    finally:
        if not was_on:
            tracemalloc.stop()
        for hook in hooks:
            hook.remove()
