"""The pair `models.lowres`: a codec that works at 1/8 resolution, deep and wide with attention, and thin without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

import distillkit

from .lowres_presets import PRESETS

if TYPE_CHECKING:
    from .lowres_net import LowRes


@final
class LowResPair(distillkit.CodecPair):
    """The pair that trains and codes fastest: no map is larger than 1/8 of the image's sides.

    Source: Jia et al. (2025), DCVC-RT, arXiv 2502.20762, for transforms at 1/8 resolution.
    Departure: the sizes are our choice. `lowres_presets` holds them, with what they measure.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            size: `tiny` (tests, the demo), `lite` (an hour on a CPU core) or `paper`.
        """

        size: Literal["tiny", "lite", "paper"] = "tiny"

    def build_teacher(self) -> LowRes:
        """Return the large codec."""
        return self._build(0)

    def build_student(self) -> LowRes:
        """Return the small codec."""
        return self._build(1)

    def _build(self, part: int) -> LowRes:
        from .lowres_net import LowRes  # compressai and timm take seconds to import

        return LowRes(PRESETS[self.config.size][part])
