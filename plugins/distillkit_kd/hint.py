"""FitNets' hint."""

from __future__ import annotations

from typing import final

from torch import Tensor

import distillkit

from .taps import Adapters, match


@final
class Hint(distillkit.LossTerm):
    """Half the mean squared difference at one tap, through a regressor, in squared units of the features.

    L = 1/2 mean((r(f_S) - sg(f_T))^2), r a trained 1x1 convolution where widths differ, else the identity; 0 where
    equal.

    Source: Romero et al. (2015), FitNets, arXiv 1412.6550, equation 3.
    Departure: a mean where the paper has a sum, so that the value does not depend on the crop's size. FitNets trains
    with the hint alone in a first stage; here the rate-distortion loss is always on, and the schedule says when the
    hint is.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            tap: the role of the features to compare.
        """

        tap: str = "analysis.1/8"

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Build the regressor.

        Raises:
            ValueError: there is no such tap, or resolutions differ.
        """
        super().__init__(config, shapes)
        (self._role,) = match([config.tap], shapes)
        self.regressor = Adapters([self._role], shapes)

    def required_taps(self) -> set[str]:
        """Return the tap."""
        return {self._role}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the batch."""
        student, teacher = step.taps[self._role]
        return 0.5 * (self.regressor(self._role, student) - teacher.float()).square().mean()
