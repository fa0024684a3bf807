"""The pair `models.lowres`: a codec that works at 1/8 resolution, deep and wide with attention, and thin without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, final

from pydantic import Field

import distillkit

from .lowres_presets import PRESETS
from .sizes import StudentSize, to_order, widths_by_depth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn


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
            student: the student's own size, by key; what is left out is that of `size`.
            gain_units: qualities at which gains are learnt, for a codec of many rates; none for one rate.
        """

        size: Literal["tiny", "lite", "paper"] = "tiny"
        student: StudentSize | None = None
        gain_units: Annotated[int, Field(ge=2)] | None = None

    @classmethod
    def students_to_order(cls, order: distillkit.Order) -> distillkit.Offer:
        """Return students that are as deep as they are wide, with as many latent channels as are needed."""
        return to_order(order, widths_by_depth(), hyper=0.6, entropy=0.7)

    def build_teacher(self) -> nn.Module | distillkit.CodecAdapter:
        """Return the large codec."""
        return self._build(0)

    def build_student(self) -> nn.Module | distillkit.CodecAdapter:
        """Return the small codec."""
        return self._build(1)

    def start_student(
        self, student: distillkit.CodecAdapter, teacher: distillkit.CodecAdapter, images: Iterable[Tensor]
    ) -> bool:
        """Slice the teacher and fit each layer, where nothing in the student is larger than in the teacher.

        Of a teacher of another architecture, or with smaller transforms, the entropy model alone, see `slicing`.
        """
        from .lowres_net import LowRes
        from .lowres_slice import slice_codec
        from .slicing import start_entropy_model

        images = list(images)
        own, other = student.module, teacher.module
        sliced = isinstance(own, LowRes) and isinstance(other, LowRes) and slice_codec(student, teacher, images)
        return sliced or start_entropy_model(student, teacher, images)

    def _build(self, part: int) -> nn.Module | distillkit.CodecAdapter:
        from .lowres_net import LowRes  # compressai and timm take seconds to import

        size = PRESETS[self.config.size][part]
        net = LowRes(self.config.student.of(size) if part and self.config.student else size)
        return distillkit.GainedCodec(net, self.config.gain_units) if self.config.gain_units else net
