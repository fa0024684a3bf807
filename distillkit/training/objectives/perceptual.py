"""An objective that trains for the eye: LPIPS beside the mean squared error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from ...hooks.components import ComponentConfig
from .distances import Lpips
from .objective import MeanSquaredError, Objective


@final
class PerceptualObjective(Objective):
    """D = mse * 255^2 * MSE + lpips * LPIPS.

    Needs `pip install 'distillkit-lic[perceptual]'` and the weights of AlexNet in a file; nothing is downloaded. The
    gradient of LPIPS alone leaves colours free to drift, so the mean squared error stays beside it.

    Source: Zhang et al. (2018), The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv
    1801.03924. Departure: the weights of the two parts are ours; at a PSNR of 30 dB 255^2 * MSE is 65.
    """

    class Config(ComponentConfig):
        """Options.

        Attributes:
            weights: torchvision's weights of AlexNet, trained on ImageNet, see `distillkit evaluate --lpips`.
            mse: weight of 255^2 * MSE.
            lpips: weight of LPIPS.
        """

        weights: Path
        mse: NonNegativeFloat = 1.0
        lpips: NonNegativeFloat = 100.0

    needs_rgb = True
    min_side = 31  # AlexNet's pooling needs this many pixels
    usual_lmbdas = MeanSquaredError.usual_lmbdas

    def __init__(self, config: Any) -> None:
        """Read the network.

        Raises:
            DataError: the package is missing, or the file cannot be used.
        """
        super().__init__(config)
        self._lpips = Lpips(config.weights)

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self._lpips.network.to(device)

    def distortion(self, x_hat: Tensor, images: Tensor) -> Tensor:
        """Return the weighted sum of both distortions of each picture."""
        squared = 255**2 * (x_hat - images).square().mean(dim=(1, 2, 3))
        distance = self._lpips.network(2 * x_hat.float() - 1, 2 * images.float() - 1).flatten()
        return self.config.mse * squared + self.config.lpips * distance
