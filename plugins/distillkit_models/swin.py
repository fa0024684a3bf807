"""The pair `models.swin`: a pure transformer codec, deep and wide, and a shallow thin one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, final

from pydantic import Field

import distillkit

from .swin_presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn


@final
class SwinPair(distillkit.CodecPair):
    """A teacher of shifted-window transformers, and a student of the same topology that is thinner and shallower.

    Source: Zhu et al. (2022), Transformer-based Transform Coding, ICLR.
    Departure: see `swin_net`. The sizes are ours; `swin_presets` holds them, with what they measure.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            size: `tiny` (tests, the example), `lite` (hours on a CPU) or `paper`.
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

    def start_student(
        self, student: distillkit.CodecAdapter, teacher: distillkit.CodecAdapter, images: Iterable[Tensor]
    ) -> bool:
        """Fit the student's entropy model to a teacher that has such a one, see `slicing`."""
        from .slicing import start_entropy_model

        return start_entropy_model(student, teacher, images)

    def _build(self, part: int) -> nn.Module | distillkit.CodecAdapter:
        from .swin_net import SwinCodec  # compressai and timm take seconds to import

        net = SwinCodec(PRESETS[self.config.size][part])
        return distillkit.GainedCodec(net, self.config.gain_units) if self.config.gain_units else net
