"""How close two pictures are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytorch_msssim
import torch
from numpy.typing import NDArray
from torch import Tensor

MS_SSIM_MIN_SIDE = 161  # five scales with a window of 11 pixels


def mse01(a: NDArray[Any], b: NDArray[Any], peak: int = 255) -> float:
    """Return the mean squared error of two pictures, uint8 or uint16, shape (H, W, C), on the scale [0, 1].

    Args:
        a: a picture.
        b: another.
        peak: their largest value.
    """
    _check_same(a, b)
    return float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))) / peak**2


def psnr_db(a: NDArray[Any], b: NDArray[Any], peak: int = 255) -> float:
    """Return the peak signal-to-noise ratio in dB, -10 log10(MSE / peak^2) over all samples; inf where equal.

    Args:
        a: uint8 or uint16, shape (H, W, C).
        b: likewise.
        peak: their largest value.
    """
    error = mse01(a, b, peak)
    return -10 * math.log10(error) if error > 0 else math.inf


def ms_ssim(a: NDArray[Any], b: NDArray[Any], peak: int = 255) -> float | None:
    """Return the multi-scale structural similarity (unitless, at most 1, mean over the channels), or None.

    None where a side is shorter than 161 pixels: the fifth scale would be smaller than the window.

    Args:
        a: uint8 or uint16, shape (H, W, C).
        b: likewise.
        peak: their largest value.

    Source: Wang, Simoncelli, Bovik (2003), "Multiscale structural similarity for image quality assessment"; computed by
    pytorch-msssim with its default weights.
    """
    _check_same(a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    return float(pytorch_msssim.ms_ssim(_batch(a), _batch(b), data_range=peak))


def decibel(similarity: float) -> float:
    """Return -10 log10(1 - similarity) in dB, the scale on which MS-SSIM is plotted; inf at 1."""
    return -10 * math.log10(1 - similarity) if similarity < 1 else math.inf


def _check_same(a: NDArray[Any], b: NDArray[Any]) -> None:
    for picture in (a, b):
        if picture.dtype.name not in ("uint8", "uint16") or picture.ndim != 3 or picture.shape != a.shape:
            raise ValueError(
                "pictures: expected two of uint8 or uint16 and the same shape (H, W, C), "
                f"got {a.dtype} {a.shape} and {b.dtype} {b.shape}."
            )


def _batch(picture: NDArray[Any]) -> Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32, order="C"))
