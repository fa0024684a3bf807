"""Channel-wise distillation."""

from __future__ import annotations

from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

import distillkit

from .taps import Adapters, match


@final
class ChannelWise(distillkit.LossTerm):
    """Divergence between the places to which each channel of the two sides attends, in nats times T^2; 0 where equal.

    L = mean over taps of T^2 mean over images and channels of KL(softmax(f_T / T) || softmax(P(f_S) / T))

    The softmax runs over the H W positions of one channel. P: a trained 1x1 convolution where widths differ.

    Source: Shu et al. (2021), "Channel-wise Knowledge Distillation for Dense Prediction", arXiv 2011.13256.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            taps: patterns (fnmatch) of the roles to compare; each must match at least one.
            temperature: T; the paper's is 4.
        """

        taps: tuple[str, ...] = ("analysis.*", "latent", "synthesis.*")
        temperature: Annotated[float, Field(gt=0)] = 4.0

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Choose the taps and build their adapters.

        Raises:
            ValueError: a pattern matches no tap, or resolutions differ.
        """
        super().__init__(config, shapes)
        self._roles = match(config.taps, shapes)
        self.adapters = Adapters(self._roles, shapes)

    def required_taps(self) -> set[str]:
        """Return the roles to compare."""
        return set(self._roles)

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over taps, images and channels."""
        return torch.stack([self._divergence(role, *step.taps[role]) for role in self._roles]).mean()

    def _divergence(self, role: str, student: Tensor, teacher: Tensor) -> Tensor:
        temperature = self.config.temperature
        log_s, log_t = (
            (side.flatten(2) / temperature).log_softmax(2) for side in (self.adapters(role, student), teacher.float())
        )
        return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(2).mean()
