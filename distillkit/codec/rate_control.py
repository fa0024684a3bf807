"""Codes a picture at a given rate or PSNR: tries qualities until the file has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from ..errors import PairError
from .runtime import ImageCodec

Measure = Literal["quality", "bpp", "psnr"]
TOLERANCE = {"quality": 0.0, "bpp": 0.005, "psnr": 0.02}  #: the search ends this close: a share of the rate, and dB


@final
@dataclass(frozen=True)
class Wanted:
    """The rate or quality that a compressed picture should have.

    Attributes:
        measure: `quality`, of a codec of many rates, in [0, 1]; `bpp`, of the whole file, in bits per pixel; `psnr`, of
            the decoded picture over all samples, in dB.
        value: of that measure.

    Raises:
        PairError: the value is outside the measure's range.
    """

    measure: Measure
    value: float

    def __post_init__(self) -> None:
        """Check the range."""
        upper = 1.0 if self.measure == "quality" else math.inf
        lower_fits = self.value >= 0 if self.measure == "quality" else self.value > 0
        if not (lower_fits and self.value <= upper and math.isfinite(self.value)):
            expected = "a number from 0 to 1" if self.measure == "quality" else "a number above 0"
            raise PairError(f"{self.measure}: expected {expected}, got {self.value}; correct it.")

    def __str__(self) -> str:
        unit = {"psnr": " dB", "bpp": " bpp"}.get(self.measure, "")
        return f"{self.measure if self.measure != 'bpp' else 'rate'} {self.value:g}{unit}"

    @property
    def tolerance(self) -> float:
        """How far from `value` the search ends."""
        return TOLERANCE[self.measure] * (self.value if self.measure == "bpp" else 1)

    def is_met_by(self, value: float) -> bool:
        """Return whether a value is as near to the wanted one as the search tries to come."""
        return abs(value - self.value) <= self.tolerance


@final
@dataclass(frozen=True)
class Encoded:
    """A picture that was compressed as wanted.

    Attributes:
        data: the file.
        quality: at which it was compressed, in [0, 1]; None by a codec of one rate.
        value: its value in the wanted measure.
        tries: how many times the picture was compressed.
    """

    data: bytes
    quality: float | None = None
    value: float | None = None
    tries: int = 1


def encode_as_wanted(codec: ImageCodec, image: NDArray[Any], wanted: Wanted | None) -> Encoded:
    """Compress a picture with a codec of many rates to a rate or a quality.

    Each try compresses the picture; for PSNR it is decoded, too. Four to six tries are usual.

    Args:
        codec: of a model of many rates.
        image: of the codec's samples, shape (H, W, C).
        wanted: a rate or quality that the model cannot reach on this picture gives the file at the end of its range;
            None is for a codec of one rate.

    Raises:
        DistillkitError: the codec has one rate, or the picture cannot be coded.
    """
    if wanted is None:
        return Encoded(codec.encode(image))
    if wanted.measure == "quality":
        return Encoded(codec.encode(image, wanted.value), wanted.value, wanted.value)
    height, width, _ = image.shape
    found: dict[float, Encoded] = {}

    def value_at(quality: float) -> float:
        data = codec.encode(image, quality)
        rate = 8 * len(data) / (width * height)
        value = rate if wanted.measure == "bpp" else psnr_db(image, codec.decode(data), codec.samples.peak)
        found[quality] = Encoded(data, quality, value)
        return value

    return replace(found[search(value_at, wanted.value, wanted.tolerance)], tries=len(found))


def search(value_at: Callable[[float], float], wanted: float, tolerance: float, num_tries: int = 16) -> float:
    """Return the quality at which a measure that rises with it comes closest to what is wanted, of those tried.

    The interval [0, 1] is divided where a straight line through the values at its ends meets the wanted value, at least
    a tenth of the interval away from both ends.

    Args:
        value_at: the measure at a quality.
        wanted: its value that is looked for; outside the range of the model the nearer end is returned.
        tolerance: a value this close ends the search.
        num_tries: the most qualities that are tried.
    """
    low, high = 0.0, 1.0
    values = {high: value_at(high)}
    if values[high] > wanted + tolerance:
        values[low] = value_at(low)
    while len(values) < num_tries and low in values and values[low] < wanted:
        if min(abs(value - wanted) for value in values.values()) <= tolerance:
            break
        share = (wanted - values[low]) / (values[high] - values[low])
        quality = low + (high - low) * min(max(share, 0.1), 0.9)
        values[quality] = value_at(quality)
        low, high = (quality, high) if values[quality] < wanted else (low, quality)
    return min(values, key=lambda quality: abs(values[quality] - wanted))


def psnr_db(original: NDArray[Any], decoded: NDArray[Any], peak: int = 255) -> float:
    """Return the PSNR of a picture over all samples, in dB; infinite where both are equal."""
    mse = float(np.square(original.astype(np.float32) - decoded).mean(dtype=np.float64))
    return 10 * math.log10(peak**2 / mse) if mse > 0 else math.inf
