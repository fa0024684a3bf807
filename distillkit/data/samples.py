"""What one pixel of a picture holds: how many samples, of how many bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CHANNELS, MAX_BITS = 65535, 16  #: what compressed files have room for


@dataclass(frozen=True)
class Samples:
    """The samples of a picture, or of the pictures that a codec codes.

    Attributes:
        channels: samples of a pixel, 1 to 65535. Three of 8 bits are sRGB; others are coded unchanged, whatever they
            mean.
        bits: of a sample, 1 to 16: values are from 0 to 2^bits - 1, in uint8 up to 8 bits and in uint16 above.

    Raises:
        ValueError: one of them is out of range.
    """

    channels: int = 3
    bits: int = 8

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (1 <= self.channels <= MAX_CHANNELS and 1 <= self.bits <= MAX_BITS):
            raise ValueError(
                f"samples: expected 1 to {MAX_CHANNELS} channels of 1 to {MAX_BITS} bits, got {self.channels} of "
                f"{self.bits}; correct them."
            )

    def __str__(self) -> str:
        if self == RGB:
            return "8-bit RGB"
        return f"{self.channels} channel{'s' * (self.channels > 1)} of {self.bits} bits"

    @property
    def peak(self) -> int:
        """The largest value."""
        return 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which they are held."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def suffix(self) -> str:
        """How a picture's file ends: `.png` where PNG holds such samples and Pillow writes them, else `.tif`."""
        return ".png" if self.channels == 1 or (self.channels == 3 and self.bits <= 8) else ".tif"

    def preview(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return what a screen shows of a picture: its first three channels, or its first as grey.

        Args:
            values: shape (H, W, C).

        Returns:
            uint8, shape (H, W, 3).
        """
        shown = values[:, :, :3] if self.channels >= 3 else values[:, :, [0, 0, 0]]
        return shown if self.bits == 8 else np.rint(shown * (255 / self.peak)).astype(np.uint8)


RGB = Samples()  #: what nearly all codecs code
