"""The pair `models.cheng2020`: a Cheng2020-style residual codec, large with attention and small without."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, final

from pydantic import Field

import distillkit

from .cheng2020_presets import PRESETS
from .sizes import StudentSize, to_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn


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
            student: the student's own size, by key; what is left out is that of `size`. Its blocks lie at 1/8
                resolution and on the latent.
            gain_units: qualities at which gains are learnt, for a codec of many rates; none for one rate.
        """

        size: Literal["tiny", "lite", "paper"] = "tiny"
        student: StudentSize | None = None
        gain_units: Annotated[int, Field(ge=2)] | None = None

    @classmethod
    def students_to_order(cls, order: distillkit.Order) -> distillkit.Offer:
        """Return students of 16 to 256 channels, with as many in the latent as are needed."""
        return to_order(order, [(blocks, range(16, 257, 8)) for blocks in (0, 1, 2)], hyper=1.5, entropy=1.75)

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
        from .cheng2020_net import Cheng2020  # compressai and timm take seconds to import

        size = PRESETS[self.config.size][part]
        if part and self.config.student:
            size = replace(self.config.student.of(size), blocks_from=8 if self.config.student.blocks else 2)
        net = Cheng2020(size)
        return distillkit.GainedCodec(net, self.config.gain_units) if self.config.gain_units else net
