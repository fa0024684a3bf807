"""Objectives that train for MS-SSIM, alone or together with the mean squared error."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from ...hooks.components import ComponentConfig
from .objective import MeanSquaredError, Objective

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5  # pixels
_C1, _C2 = 0.01**2, 0.03**2
MS_SSIM_MIN_SIDE = (_WINDOW - 1) * 2 ** (len(_SCALE_WEIGHTS) - 1) + 1  #: in pixels: the coarsest scale holds a window


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the multi-scale structural similarity of each pair of pictures (unitless, at most 1, mean of channels).

    Contrasts that are negatively correlated count as 1e-4 instead of 0: at 0 the gradient of a power below 1 is
    infinite, and a codec at random weights starts near there.

    Args:
        a: shape (B, C, H, W), range [0, 1], sides of at least 161 pixels.
        b: likewise.

    Returns:
        Shape (B,).

    Source: Wang, Simoncelli, Bovik (2003), "Multiscale structural similarity for image quality assessment".
    """
    steps = torch.arange(_WINDOW, device=a.device, dtype=a.dtype) - _WINDOW // 2
    window = (-steps.square() / (2 * _SIGMA**2)).exp()
    groups = 5 * a.shape[1]
    window = (window / window.sum()).expand(groups, 1, 1, _WINDOW)
    similarity = torch.ones((), device=a.device, dtype=a.dtype)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        moments = torch.cat([a, b, a * a, b * b, a * b], dim=1)
        blurred = F.conv2d(F.conv2d(moments, window, groups=groups), window.transpose(2, 3), groups=groups)
        mean_a, mean_b, aa, bb, ab = blurred.chunk(5, dim=1)
        product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
        values = (2 * (ab - product) + _C2) / (aa + bb - squares + _C2)
        if scale == len(_SCALE_WEIGHTS) - 1:
            values = values * (2 * product + _C1) / (squares + _C1)
        similarity = similarity * values.mean(dim=(2, 3)).clamp_min(1e-4) ** weight
        padding = [side % 2 for side in a.shape[2:]]
        a, b = (F.avg_pool2d(picture, 2, padding=padding) for picture in (a, b))
    return similarity.mean(dim=1)


@final
class MultiScaleSimilarity(Objective):
    """D = 1 - MS-SSIM. Crops need sides of at least 161 pixels: 192 or 256 for most codecs.

    Source: CompressAI's convention (Begaint et al., 2020, arXiv 2011.03029); MS-SSIM by Wang, Simoncelli, Bovik (2003),
    "Multiscale structural similarity for image quality assessment".
    """

    metric = "ms-ssim"
    min_side = MS_SSIM_MIN_SIDE
    usual_lmbdas = (2.40, 4.58, 8.73, 16.64, 31.73, 60.50)

    def distortion(self, x_hat: Tensor, images: Tensor) -> Tensor:
        """Return 1 - MS-SSIM of each picture."""
        return 1 - ms_ssim(x_hat, images)


@final
class Weighted(Objective):
    """D = mse * 255^2 * MSE + ms_ssim * (1 - MS-SSIM).

    Departure: no published recipe is followed. With the defaults both parts weigh what CompressAI's lambdas for PSNR
    and MS-SSIM give them (.0130 against 16.64, a factor of 1280), and `lmbda` is one for MSE.
    """

    class Config(ComponentConfig):
        """Options.

        Attributes:
            mse: weight of 255^2 * MSE.
            ms_ssim: weight of 1 - MS-SSIM.
        """

        mse: NonNegativeFloat = 0.5
        ms_ssim: NonNegativeFloat = 640.0

    min_side = MS_SSIM_MIN_SIDE
    usual_lmbdas = MeanSquaredError.usual_lmbdas

    def distortion(self, x_hat: Tensor, images: Tensor) -> Tensor:
        """Return the weighted sum of both distortions of each picture."""
        squared = 255**2 * (x_hat - images).square().mean(dim=(1, 2, 3))
        return self.config.mse * squared + self.config.ms_ssim * (1 - ms_ssim(x_hat, images))
