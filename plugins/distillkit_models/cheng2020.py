"""The pair `models.cheng2020`: a Cheng2020-style residual codec, large with attention and small without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

import distillkit

from .cheng2020_presets import PRESETS

if TYPE_CHECKING:
    from .cheng2020_net import Cheng2020


@final
class Cheng2020Pair(distillkit.CodecPair):
    """FEDS's teacher, and a student of the same topology that is thinner, shallower and without attention.

    Source: Cheng et al. (2020), arXiv 2001.01568, for the transforms; He et al. (2021), arXiv 2103.15306, for the
    checkerboard context; FEDS (arXiv 2503.06399) for what makes a teacher: Swin V2 attention, additional residual
    blocks, expanded latent channels.
    Departure: FEDS's sizes are not public. `cheng2020_presets` holds ours, with what they measure.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            size: `tiny` (tests, the demo), `lite` (hours on a CPU) or `paper`.
        """

        size: Literal["tiny", "lite", "paper"] = "tiny"

    def build_teacher(self) -> Cheng2020:
        """Return the large codec."""
        return self._build(0)

    def build_student(self) -> Cheng2020:
        """Return the small codec."""
        return self._build(1)

    def _build(self, part: int) -> Cheng2020:
        from .cheng2020_net import Cheng2020  # compressai and timm take seconds to import

        return Cheng2020(PRESETS[self.config.size][part])
