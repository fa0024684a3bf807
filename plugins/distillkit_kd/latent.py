"""Distillation of the latent and the hyper-latent."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

import distillkit

from .taps import Adapters, match


class _TapMse(distillkit.LossTerm):
    role: ClassVar[str]

    def __init__(self, config: distillkit.LossConfig, shapes: distillkit.TapShapes) -> None:
        """Build the adapter.

        Raises:
            ValueError: a side has no such tap, or resolutions differ.
        """
        super().__init__(config, shapes)
        match([self.role], shapes)
        self.adapters = Adapters([self.role], shapes)

    def required_taps(self) -> set[str]:
        """Return the tap."""
        return {self.role}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the batch, in squared quantisation steps."""
        student, teacher = step.taps[self.role]
        return (self.adapters(self.role, student) - teacher.float()).square().mean()


@final
class LatentMse(_TapMse):
    """Mean squared difference of the latents y before quantisation, in squared quantisation steps; 0 where equal.

    L = mean((P(y_S) - sg(y_T))^2), P a trained 1x1 convolution where widths differ.

    Source: PRIM (Allemand et al., 2025, arXiv 2509.10366).
    Departure: P, since PRIM keeps the latent's width; before quantisation on both sides. See `kd.output` on weights.
    """

    role = "latent"


@final
class HyperLatentMse(_TapMse):
    """Mean squared difference of the hyper-latents z before quantisation, in squared quantisation steps; 0 where equal.

    L = mean((P(z_S) - sg(z_T))^2), P a trained 1x1 convolution where widths differ.

    Source: PRIM (Allemand et al., 2025, arXiv 2509.10366).
    Departure: P, and before quantisation on both sides. See `kd.output` on weights.
    """

    role = "hyper_latent"
