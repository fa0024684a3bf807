"""How much memory an export takes for a large picture, measured on small ones before it is coded; no torch."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import final

from ..codec.free import compare_with_free, free_ram
from ..errors import DataError

_LARGE = 2**22  # pixels; for fewer it is not measured
_SIDES = (64, 512)  # of the pictures that it is measured on: the first warms up
_LEAST = 24  # bytes per pixel: three values in float32 before and after; a runtime's own store may hide the rest
_PROCESS = Path("/proc/self")


@final
class ExportMemory:
    """Reports what a large picture takes, and refuses one for which too little is free. Measures on Linux only.

    Args:
        code: codes a picture of a side in pixels, both ways.
    """

    def __init__(self, code: Callable[[int], object]) -> None:
        self._code = code
        self._a_pixel: float | None = None

    def check(self, height: int, width: int) -> None:
        """Check that a picture of this size can be coded; a runtime sees it whole, so its memory grows with it.

        Raises:
            DataError: it takes more memory than is free.
        """
        if height * width <= _LARGE:
            return
        try:
            self._a_pixel = self._a_pixel or self._measured()
        except OSError:  # of another system, or of a container that hides it
            return
        problem, takes = compare_with_free(height, width, int(self._a_pixel * height * width), free_ram())
        if problem is not None:
            raise DataError(problem)
        logging.getLogger("distillkit").warning("%s", takes)

    def _measured(self) -> float:
        """Return bytes per pixel: by how much the largest size of this process grew."""
        with suppress(OSError, AttributeError):  # of systems with another C library
            ctypes.CDLL(None).malloc_trim(0)  # what earlier pictures left is not used without being counted
        before = 0
        for side in _SIDES:
            (_PROCESS / "clear_refs").write_text("5")  # sets its largest size back
            before = _peak_bytes()
            self._code(side)
        return max((_peak_bytes() - before) / _SIDES[-1] ** 2, _LEAST)


def _peak_bytes() -> int:
    lines = (_PROCESS / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
