"""A classical codec at the PSNR of a learned one, on one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from ..classical import ClassicalCodec
from ..quality import psnr_db


@final
@dataclass(frozen=True)
class Match:
    """Where a classical codec reaches a PSNR.

    Attributes:
        quality: the lowest that reaches it.
        rate_bpp: bits of its file a pixel at exactly that PSNR: interpolated between this quality and the one below,
            the logarithm of the rate linear in PSNR.
    """

    quality: int
    rate_bpp: float


def match_psnr(codec: ClassicalCodec, image: NDArray[Any], target_db: float) -> Match | None:
    """Return where a codec reaches a PSNR on a picture, by bisection on its quality; None if it cannot.

    It cannot where its best quality is worse, or its worst already better. PSNR is taken to rise with quality.

    Args:
        codec: what is matched.
        image: uint8, shape (H, W, 3), RGB.
        target_db: PSNR in dB over RGB.
    """
    tried: dict[int, tuple[float, float]] = {}
    below, above = -1, len(codec.qualities)  # indexes: not good enough, and good enough
    while above - below > 1:
        middle = (below + above) // 2
        data = codec.encode(image, codec.qualities[middle])
        rate_bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
        tried[middle] = rate_bpp, psnr_db(image, codec.decode(data))
        if tried[middle][1] < target_db:
            below = middle
        else:
            above = middle
    if above == len(codec.qualities) or below == -1:
        return None
    (low_rate, low_db), (high_rate, high_db) = tried[below], tried[above]
    share = (target_db - low_db) / (high_db - low_db)
    rate_bpp = math.exp((1 - share) * math.log(low_rate) + share * math.log(high_rate))
    return Match(codec.qualities[above], rate_bpp)
