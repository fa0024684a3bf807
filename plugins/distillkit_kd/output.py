"""Distillation of the reconstruction."""

from __future__ import annotations

from typing import final

from torch import Tensor

import distillkit

from .taps import match


@final
class OutputMse(distillkit.LossTerm):
    """Mean squared difference of the two reconstructions, on the [0, 1] scale; 0 where equal.

    L = mean((x_hat_S - sg(x_hat_T))^2)

    Source: PRIM (Allemand et al., 2025, arXiv 2509.10366), one of its three terms.
    Departure: unweighted here, as all terms are. PRIM weighs latents, hyper-latents and output by 0.2 each and the
    rate-distortion cost by 0.4 (its code is public: FABallemand/PRIM on GitHub); see docs/losses.md for that mix.
    """

    def __init__(self, config: distillkit.LossConfig, shapes: distillkit.TapShapes) -> None:
        """Find the tap.

        Raises:
            ValueError: a side has no reconstruction to tap.
        """
        super().__init__(config, shapes)
        match(["reconstruction"], shapes)

    def required_taps(self) -> set[str]:
        """Return the reconstruction."""
        return {"reconstruction"}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the batch."""
        student, teacher = step.taps["reconstruction"]
        return (student.float() - teacher.float()).square().mean()
