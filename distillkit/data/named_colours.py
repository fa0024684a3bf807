"""Colours that a picture names without a profile (by CICP, gAMA, EXIF), as ICC profiles."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_D65 = (0.3127, 0.3290)
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
#: Code of the colour primaries -> x and y of red, green, blue and white (H.273, table 2).
_PRIMARIES = {
    1: _BT709,
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
#: Code of the transfer characteristics -> gamma, or None for the curve of sRGB (H.273, table 3). Those of television
#: (1, 6, 14, 15) count as sRGB's, as in browsers.
_GAMMAS = {1: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_UNSPECIFIED = 2


class ColourError(ValueError):
    """Colours cannot become sRGB."""


def cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """Return an ICC profile for RGB with these codes of ITU-T H.273, or None for sRGB.

    Raises:
        ColourError: the colours have no such profile, as those of high dynamic range (PQ, HLG).
    """
    primaries = 1 if primaries == _UNSPECIFIED else primaries
    transfer = 13 if transfer == _UNSPECIFIED else transfer
    if primaries not in _PRIMARIES or transfer not in _GAMMAS:
        raise ColourError(f"colours with primaries {primaries} and transfer {transfer} (ITU-T H.273)")
    if primaries == 1 and _GAMMAS[transfer] is None:
        return None
    return _matrix_profile(_PRIMARIES[primaries], _GAMMAS[transfer])


def chromatic_profile(exponent: float, numbers: Sequence[int] | None) -> bytes | None:
    """Return an ICC profile for RGB as PNG's gAMA and cHRM have it, or None for sRGB or numbers that make no sense.

    Args:
        exponent: of gAMA: the value is the light to this power.
        numbers: of cHRM: x and y of white, red, green and blue, in 1 / 100000; or None.
    """
    points = _BT709
    if numbers is not None:
        white, *others = ((x / 1e5, y / 1e5) for x, y in zip(numbers[::2], numbers[1::2], strict=True))
        points = (*others, white)
    if not 0.1 < exponent < 10 or any(not 0.01 < y < 1 for _, y in points):
        return None
    if np.abs(np.subtract(points, _BT709)).max() < 0.01:
        points = _BT709
    gamma = None if abs(exponent - 1 / 2.2) < 0.02 else 1 / exponent  # sRGB's own is written so
    return None if points == _BT709 and gamma is None else _matrix_profile(points, gamma)


def adobe_rgb_profile() -> bytes:
    """Return an ICC profile of Adobe RGB (1998)."""
    return _matrix_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65), 2.19921875)


@lru_cache(maxsize=16)
def _matrix_profile(points: tuple[tuple[float, float], ...], gamma: float | None) -> bytes:
    """Return an ICC profile of version 4 with a matrix and one curve.

    Args:
        points: x and y of red, green, blue and white.
        gamma: of the curve, or None for that of sRGB.
    """
    colours = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in points]).T  # XYZ for Y = 1, one a column
    matrix = colours[:, :3] * np.linalg.solve(colours[:, :3], colours[:, 3])
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ colours[:, 3])
    matrix = np.linalg.inv(_BRADFORD) @ (cones[:, None] * (_BRADFORD @ matrix))
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045) if gamma is None else (gamma,)
    curve = struct.pack(">4s4xH2x", b"para", 3 if gamma is None else 0) + b"".join(map(_fixed, numbers))
    tags = {b"wtpt": _xyz(_D50), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {name: _xyz(matrix[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s28x", start + len(body), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (head + b"".join(map(_fixed, _D50))).ljust(128, b"\0") + table + body


def _fixed(number: float) -> bytes:
    return struct.pack(">i", round(number * 65536))


def _xyz(values: NDArray[Any]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))
