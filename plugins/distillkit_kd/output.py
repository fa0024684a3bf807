"""Distillation of the reconstruction."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

import distillkit


@final
class OutputMse(distillkit.LossTerm):
    """Mean squared difference of the two reconstructions, on the [0, 1] scale; 0 where equal.

    L = mean((x_hat_S - sg(x_hat_T))^2)

    The whole teacher runs for it, in eval mode.

    Source: PRIM (Allemand et al., 2025, arXiv 2509.10366), one of its three terms; the recipes `prim-tiny` have its
    weights.
    """

    needs_teacher_output: ClassVar[bool] = True

    def required_taps(self) -> set[str]:
        """Return no taps: the outputs are enough."""
        return set()

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the batch."""
        assert step.teacher_output is not None
        return (step.output.x_hat.float() - step.teacher_output.x_hat.float()).square().mean()
