"""Turns pictures into the pixels that are coded: upright, 8-bit sRGB."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .content import Content, quiet
from .named_colours import ColourError
from .profiles import to_srgb

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_srgb(image: Image.Image, content: Content, convert: bool) -> NDArray[np.uint8]:
    """Return a picture upright, in sRGB: uint8, shape (H, W, 3).

    Of more than 8 bits the upper 8 are kept. What is transparent is laid on white.

    Args:
        image: opened.
        content: what it holds.
        convert: whether a profile that cannot be used is ignored.

    Raises:
        ColourError: the colour profile cannot be used.
        Exception: whatever Pillow's decoders raise.
    """
    with quiet() if image.format == "TIFF" else nullcontext():  # Pillow looks at its EXIF once more
        image.load()
    colours, alpha = _separated(image, content)
    if content.profile is not None:
        try:
            colours = to_srgb(colours, content.profile)
        except ColourError:
            if not convert:
                raise
    colours = colours.convert("RGB")
    if alpha is not None:
        colours = Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)
    if content.orientation in _TURNS:
        colours = colours.transpose(_TURNS[content.orientation])
    return np.array(colours)


def _separated(image: Image.Image, content: Content) -> tuple[Image.Image, Image.Image | None]:
    """Return colours of 8 bits per channel (mode L, RGB or CMYK) and alpha (mode L), if there is any."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # Pillow itself would clip at 255
        bits = 16 if image.format == "PPM" else content.bits  # Pillow has spread those over 16 bits
        values = np.clip(np.asarray(image).astype(np.int64), 0, 2**bits - 1)
        return _grey(values >> (bits - 8)), _where_not(values, transparent)
    if image.mode in ("1", "L"):
        values = np.asarray(image.convert("L"))
        if isinstance(transparent, int):  # as the file counts, in fewer than 8 bits perhaps
            transparent *= 255 // (2**content.bits - 1)
        return _grey(values), _where_not(values, transparent)
    if image.mode in ("LA", "La"):
        parts = image.convert("LA").split()
        return parts[0], parts[1]
    if image.mode in ("RGBA", "RGBa", "PA") or transparent is not None:
        if image.mode == "RGB" and content.bits > 8:
            raise ValueError("16 bits of RGB with a transparent colour, of which Pillow keeps 8; save it with alpha")
        parts = image.convert("RGBA").split()
        return Image.merge("RGB", parts[:3]), parts[3]
    return (image if image.mode in ("RGB", "CMYK") else image.convert("RGB")), None


def _grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def _where_not(values: NDArray[Any], transparent: object) -> Image.Image | None:
    return None if not isinstance(transparent, int) else _grey(np.where(values == transparent, 0, 255))
