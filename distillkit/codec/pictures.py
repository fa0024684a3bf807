"""Pictures as they are found to pixels as they are coded: upright, 8-bit sRGB."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from ..errors import DataError
from ..images import check_image

_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def read_picture(path: Path, convert: bool = False) -> NDArray[Any]:
    """Return the picture in `path`, upright by its EXIF orientation, in sRGB: uint8, shape (H, W, 3).

    An embedded colour profile other than sRGB is carried out, for a compressed file cannot hold it.

    Args:
        path: an image file.
        convert: take other kinds of picture too: 16 bits a channel are cut to 8, transparency is laid on white, grey,
            palette and CMYK pictures become RGB, the first of several frames stands for all, and an unreadable colour
            profile is ignored.

    Raises:
        DataError: the file is unreadable, or of a kind that has to be converted.
    """
    if not convert and (problem := check_image(path)) is not None:
        raise DataError(f"{problem} Or pass `--convert`; it makes 8-bit RGB of it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # damaged metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(opened)
                return np.array(_srgb(path, _flat(image), opened.info.get("icc_profile"), convert).convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise all sorts
        raise DataError(
            f"image {path}: expected a readable image, got {type(error).__name__}: {error}; save it again."
        ) from error


def _flat(image: Image.Image) -> Image.Image:
    """Return a picture without alpha, of 8 bits a channel."""
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow itself would clip at 255
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point grey, whose white is not known")
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _srgb(path: Path, image: Image.Image, icc: bytes | None, convert: bool) -> Image.Image:
    if not icc:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image  # exactly as it is
        done = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        if convert:
            return image
        raise DataError(
            f"image {path}: expected a colour profile that fits the picture, got {error}; save it as sRGB, or take its "
            "pixels as sRGB with `--convert`."
        ) from None
    assert done is not None  # only where it works in place
    return done
