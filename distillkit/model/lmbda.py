"""The rate-distortion trade-off of a run or a model: one number, or the range of a codec of many rates."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, final, overload

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True)
class LmbdaRange:
    """The trade-offs of a codec of many rates.

    A quality q in [0, 1] means `low * (high / low) ** q`.

    Attributes:
        low: trade-off at quality 0, in bits per pixel for a squared difference of one 8-bit level.
        high: trade-off at quality 1.

    Raises:
        ValueError: these are no numbers above 0 that rise.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not (_is_positive(self.low) and _is_positive(self.high) and self.low < self.high):
            raise ValueError(f"expected numbers 0 < low < high, got low = {self.low!r} and high = {self.high!r}.")

    @overload
    def at(self, quality: float) -> float: ...
    @overload
    def at(self, quality: Tensor) -> Tensor: ...
    def at(self, quality: float | Tensor) -> float | Tensor:
        """Return the trade-off of a quality in [0, 1], or of each in a tensor.

        A number has twelve digits: `at(quality_of(0.013))` is 0.013.
        """
        lmbda = self.low * (self.high / self.low) ** quality
        return float(f"{lmbda:.12g}") if isinstance(lmbda, float) else lmbda

    @overload
    def quality_of(self, lmbda: float) -> float: ...
    @overload
    def quality_of(self, lmbda: Tensor) -> Tensor: ...
    def quality_of(self, lmbda: float | Tensor) -> float | Tensor:
        """Return the quality of a trade-off, or of each in a tensor; in [0, 1] within the range."""
        logarithm = math.log(lmbda) if isinstance(lmbda, (int, float)) else lmbda.log()
        return (logarithm - math.log(self.low)) / math.log(self.high / self.low)

    def weight_of(self, quality: Tensor) -> Tensor:
        """Return how much the cost of each quality counts in training: its lambda's inverse root, 1 at quality 0.5.

        The cost of a picture grows about as the root of lambda. Without weights the low rates, whose costs are several
        times smaller, would hardly count.
        """
        return (self.low / self.high) ** ((quality - 0.5) / 2)

    def holds(self, other: Lmbda) -> bool:
        """Return whether a trade-off, or all of a range, lies in this range."""
        low, high = (other.low, other.high) if isinstance(other, LmbdaRange) else (other, other)
        return self.low <= low and high <= self.high

    def __format__(self, spec: str) -> str:
        return f"{self.low:{spec or 'g'}} to {self.high:{spec or 'g'}}"

    def __str__(self) -> str:
        return format(self)


Lmbda = float | LmbdaRange


def as_lmbda(value: Any) -> Lmbda:
    """Return a trade-off as in a recipe or a file: a number above 0, or a table of `low` and `high`.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, LmbdaRange):
        return value
    if isinstance(value, Mapping):
        bounds = cast(Mapping[str, Any], value)
        if set(bounds) != {"low", "high"}:
            raise ValueError(f"expected low and high, got {', '.join(bounds) or 'nothing'}.")
        return LmbdaRange(bounds["low"], bounds["high"])
    if _is_positive(value):
        return float(value)
    raise ValueError(f"expected a number above 0, or {{low = ..., high = ...}}, got {value!r}.")


def at_lmbda(lmbda: Lmbda | None, quality: float | None) -> float | None:
    """Return the trade-off of a model at a quality; that of a model of one rate whatever the quality is."""
    if isinstance(lmbda, LmbdaRange):
        return None if quality is None else lmbda.at(quality)
    return lmbda


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
