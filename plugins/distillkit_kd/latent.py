"""Distillation of the latent and the hyper-latent."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

import distillkit

from .taps import Adapters, match


class _LatentMse(distillkit.LossTerm):
    role: ClassVar[str]

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            quantised: compare what the decoder receives: the teacher's rounded values with the student's, noisy or
                rounded as its own training has them. By default both sides are compared before quantisation.
        """

        quantised: bool = False

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Build the adapter.

        Raises:
            ValueError: a side has no such tap, or resolutions differ.
        """
        super().__init__(config, shapes)
        self._role = f"quantised_{self.role}" if config.quantised else self.role
        match([self._role], shapes)
        self.adapters = Adapters([self._role], shapes)

    def required_taps(self) -> set[str]:
        """Return the tap."""
        return {self._role}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the batch, in squared quantisation steps."""
        student, teacher = step.taps[self._role]
        return (self.adapters(self._role, student) - teacher.float()).square().mean()


@final
class LatentMse(_LatentMse):
    """Mean squared difference of the latents y, in squared quantisation steps; 0 where equal.

    L = mean((P(y_S) - sg(y_T))^2), P a trained 1x1 convolution where widths differ.

    Source: PRIM (Allemand et al., 2025, arXiv 2509.10366), which has `quantised = true`.
    Departure: P, since PRIM keeps the latent's width; before quantisation by default, so that noise does not count as
    an error.
    """

    role = "latent"


@final
class HyperLatentMse(_LatentMse):
    """Mean squared difference of the hyper-latents z, in squared quantisation steps; 0 where equal.

    L = mean((P(z_S) - sg(z_T))^2), P a trained 1x1 convolution where widths differ.

    Source: PRIM (Allemand et al., 2025, arXiv 2509.10366), which has `quantised = true`.
    Departure: P, since PRIM gives its student the teacher's width; before quantisation by default.
    """

    role = "hyper_latent"
