"""How long a codec takes for a picture, and which part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, final, get_args

from numpy.typing import NDArray

from ..codec.runtime import ImageCodec
from ..codec.stopwatch import Part
from ..evaluation.same_files import usual_quality

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


def coding_time(codec: ImageCodec, picture: NDArray[Any]) -> CodingTime | None:
    """Time a codec on a picture (H, W, C), by its stopwatch; None where the parts cannot be timed apart.

    A codec of many rates is timed at quality 0.5.
    """
    encode, decode = [], []
    quality = usual_quality(codec)
    for _ in range(NUM_TIMED + 1):
        data = codec.encode(picture, quality)
        encode.append(dict(codec.stopwatch.seconds))
        codec.decode(data)
        decode.append(dict(codec.stopwatch.seconds))
    order = get_args(Part)  # as a picture passes through them; back when decoding
    timed = CodingTime(_medians(encode[1:], order), _medians(decode[1:], order[::-1]))
    return timed if len(timed.encode) > 1 and len(timed.decode) > 1 else None


def _medians(rows: list[dict[str, float]], order: Sequence[str]) -> dict[str, float]:
    return {part: median(row.get(part, 0.0) for row in rows) for part in order if part in rows[0]}
