"""The pair `models.swin`: a pure transformer codec, deep and wide, and a shallow thin one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

import distillkit

from .swin_presets import PRESETS

if TYPE_CHECKING:
    from .swin_net import SwinCodec


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
        """

        size: Literal["tiny", "lite", "paper"] = "tiny"

    def build_teacher(self) -> SwinCodec:
        """Return the large codec."""
        return self._build(0)

    def build_student(self) -> SwinCodec:
        """Return the small codec."""
        return self._build(1)

    def _build(self, part: int) -> SwinCodec:
        from .swin_net import SwinCodec  # compressai and timm take seconds to import

        return SwinCodec(PRESETS[self.config.size][part])
