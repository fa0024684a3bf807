"""What a codec is trained for: its rate and its distortion, as one cost. The only place that converts units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor

from ...hooks.components import Component
from ...model.adapters import CodecOutput
from ..losses import sum_of_bits

if TYPE_CHECKING:
    from ...hooks.loader import Plugins


class Objective(Component, ABC):
    """A distortion, and with it a rate-distortion cost. Built as `Objective(config)`.

    The recipe gives the trade-off `lmbda`, the phase the weight beside the loss terms.

    Attributes:
        metric: the quality that it trains for: progress and metrics of the run show it.
        min_side: the shortest side of a picture in pixels for which `distortion` is defined.
        needs_rgb: whether it is defined only for red, green and blue.
        usual_lmbdas: trade-offs that are in use with it, from low rates to high ones; for messages.
    """

    metric: ClassVar[Literal["psnr", "ms-ssim"]] = "psnr"
    min_side: ClassVar[int] = 1
    needs_rgb: ClassVar[bool] = False
    usual_lmbdas: ClassVar[tuple[float, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def distortion(self, x_hat: Tensor, images: Tensor) -> Tensor:
        """Return the distortion of each picture, shape (B,); `lmbda` times it is in bits per pixel.

        Args:
            x_hat: reconstructions, shape (B, C, H, W), float32, nominal range [0, 1], not clamped. Called outside of
                autocast.
            images: originals, the same shape, range [0, 1].
        """

    def to(self, device: torch.device) -> None:
        """Move networks and other tensors to where the pictures are. They are not trained, and enter no file."""


@final
class MeanSquaredError(Objective):
    """D = 255^2 * MSE: the mean squared difference in 8-bit levels, whatever the bits of a sample.

    Source: CompressAI's convention (Begaint et al., 2020, arXiv 2011.03029).
    """

    usual_lmbdas = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)

    def distortion(self, x_hat: Tensor, images: Tensor) -> Tensor:
        """Return 255^2 times the mean squared error of each picture."""
        return 255**2 * (x_hat - images).square().mean(dim=(1, 2, 3))


class RateDistortion(NamedTuple):
    """The rate-distortion loss of a batch, as scalars; all but `mse` carry gradient.

    Attributes:
        rate_bpp: estimated from the likelihoods.
        mse: mean squared error on the [0, 1] scale, whatever the objective.
        distortion: mean over the batch, in the objective's unit.
        cost: mean of weight * (lmbda * distortion + rate); in bits per pixel.
    """

    rate_bpp: Tensor
    mse: Tensor
    distortion: Tensor
    cost: Tensor


def rate_distortion(
    output: CodecOutput,
    images: Tensor,
    lmbda: Tensor | float,
    objective: Objective | None = None,
    weight: Tensor | float = 1.0,
) -> RateDistortion:
    """Return J = lmbda * D + R.

    Args:
        output: the codec's output for `images`.
        images: shape (B, C, H, W), range [0, 1].
        lmbda: the trade-off in bits per pixel for one unit of distortion; shape (B,) gives each picture its own.
        objective: defines D; by default `MeanSquaredError`.
        weight: how much J counts; shape (B,) gives each picture its own.

    Returns:
        J, and its parts.

    Source: CompressAI's convention (Begaint et al., 2020, arXiv 2011.03029); the qualities 1 to 6 of its zoo are lmbda
    .0018 .0035 .0067 .0130 .0250 .0483 for MSE, 2.40 4.58 8.73 16.64 31.73 60.50 for MS-SSIM.
    """
    objective = objective or MeanSquaredError(None)
    batch, _, height, width = images.shape
    if isinstance(weight, Tensor):
        pictures = [sum_of_bits([each[i] for each in output.likelihoods.values()]) for i in range(batch)]
        rates = torch.stack(pictures) / (height * width)
        rate_bpp, weighted_bpp = rates.mean(), (weight * rates).mean()
    else:
        rate_bpp = sum_of_bits(output.likelihoods.values()) / (batch * height * width)
        weighted_bpp = weight * rate_bpp
    x_hat, images = output.x_hat.float(), images.float()
    with torch.autocast(images.device.type, enabled=False):
        distortion = objective.distortion(x_hat, images)
    if isinstance(objective, MeanSquaredError):
        mse = distortion.detach().mean() / 255**2
    else:
        mse = (x_hat.detach() - images).square().mean()
    return RateDistortion(rate_bpp, mse, distortion.mean(), (weight * lmbda * distortion).mean() + weighted_bpp)


def build_objective(choice: Mapping[str, Any], plugins: Plugins, where: str) -> Objective:
    """Return an objective by its name and options, as a recipe or a model's file holds them.

    Raises:
        DistillkitError: it is not registered, its options are not valid, or a file that it needs cannot be used.
    """
    options = {key: value for key, value in choice.items() if key != "name"}
    objective_class, config = plugins.configure("objective", choice["name"], options, where)
    return objective_class(config)
