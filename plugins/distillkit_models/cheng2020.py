"""The pair `models.cheng2020`: a Cheng2020-style residual codec, large with attention and small without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, final

from pydantic import Field

import distillkit

from .cheng2020_presets import PRESETS

if TYPE_CHECKING:
    from torch import nn


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
            gain_units: qualities at which gains are learnt, for a codec of many rates; none for one rate.
        """

        size: Literal["tiny", "lite", "paper"] = "tiny"
        gain_units: Annotated[int, Field(ge=2)] | None = None

    def build_teacher(self) -> nn.Module | distillkit.CodecAdapter:
        """Return the large codec."""
        return self._build(0)

    def build_student(self) -> nn.Module | distillkit.CodecAdapter:
        """Return the small codec."""
        return self._build(1)

    def _build(self, part: int) -> nn.Module | distillkit.CodecAdapter:
        from .cheng2020_net import Cheng2020  # compressai and timm take seconds to import

        net = Cheng2020(PRESETS[self.config.size][part])
        return distillkit.GainedCodec(net, self.config.gain_units) if self.config.gain_units else net
