"""Converts pictures to sRGB by their colour profiles; what a profile does counts, not its name."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from .named_colours import ColourError

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_ROUNDING = 2  # levels of 255 by which sRGB's own profiles, of many makers, differ


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture in sRGB; unchanged if the profile changes nothing.

    Args:
        image: 8 bits per channel, of mode L, RGB or CMYK.
        profile: the ICC profile of its colours. One for RGB works for grey, too.

    Raises:
        ColourError: the profile is damaged, or for other kinds of picture.
    """
    if find_problem(profile, image.mode) is not None and image.mode == "L":
        image = image.convert("RGB")
    if (problem := find_problem(profile, image.mode)) is not None:
        raise ColourError(problem)
    return image if _changes_nothing(profile, image.mode) else _transformed(image, profile)


@lru_cache(maxsize=64)
def find_problem(profile: bytes, mode: str) -> str | None:
    """Return why a profile cannot be used for a picture of mode L, RGB or CMYK, or None.

    Args:
        profile: the ICC profile.
        mode: of the picture, Pillow's.
    """
    try:
        opened: Any = ImageCms.ImageCmsProfile(BytesIO(profile)).profile
        if (space := opened.xcolor_space.strip()) != _SPACES[mode]:
            return f"a profile for {space} pictures"
        _transformed(Image.new(mode, (1, 1)), profile)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return f"a profile that cannot be read ({error})"
    return None


@lru_cache(maxsize=64)
def _changes_nothing(profile: bytes, mode: str) -> bool:
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 256 if mode == "L" else 18).round().astype(np.uint8)
    samples = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    image = Image.fromarray(samples)
    before = np.asarray(image.convert("RGB"), np.int16)
    return bool(np.abs(np.asarray(_transformed(image, profile), np.int16) - before).max() <= _ROUNDING)


def _transformed(image: Image.Image, profile: bytes) -> Image.Image:
    source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
    done = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert done is not None  # only where it works in place
    return done
