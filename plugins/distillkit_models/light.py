"""The pair `models.light`: one transform of a trained codec is made light, and the rest is kept."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

from pydantic import AfterValidator, Field, model_validator

import distillkit

from .sizes import widths_by_depth

if TYPE_CHECKING:
    from torch import nn

    from .light_codec import Latents

PositiveInt = Annotated[int, Field(gt=0)]


class LightSize(distillkit.ComponentConfig):
    """The size of a light transform.

    Attributes:
        width: channels at 1/8 resolution.
        blocks: blocks there.
    """

    width: PositiveInt = 48
    blocks: Annotated[int, Field(ge=0)] = 1


class KeptCodec(distillkit.ComponentConfig):
    """The trained codec from which everything else is kept, as a light codec's own file names it.

    Attributes:
        pair: name of its pair.
        options: of that pair.
        part: which of the pair's two codecs it is.
        lmbda: trade-off that it was trained for, or the range of a codec of many rates.
        fingerprint: of its weights and tables.
    """

    pair: str
    options: dict[str, Any]
    part: Literal["student", "teacher"]
    lmbda: float | distillkit.LmbdaRange
    fingerprint: str


def _absolute(path: str) -> str:
    return path if path.startswith("zoo:") else str(Path(path).absolute())


@final
class LightPair(distillkit.CodecPair):
    """A trained codec, and the same codec with a light synthesis or a light analysis transform.

    With a light `synthesis` the codec reads the files that the teacher wrote: everything that decides how bytes become
    latents is the teacher's, and frozen. It trains on the teacher's latents, rounded as in a file; the rate is the
    teacher's, is not computed, and counts as 0 in metrics. With a light `analysis` it writes files that the teacher
    reads, and trains through the frozen rest of the codec. A codec of many rates stays one, gains included.

    Source: Fu et al. (2024), arXiv 2309.02529, for distilling the decoder alone; Jia et al. (2025), arXiv 2502.20762,
    for transforms at 1/8 resolution.
    Departure: the decoder's layers and sizes, and that its losses are those that a recipe names.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            teacher: a run folder, a model file or `zoo:NAME`: the codec from which everything else is kept; by default
                one that ships, for trying things out. Relative to the working directory, not to the recipe's folder.
            synthesis: size of a light synthesis transform; one of 48 channels unless an analysis is given.
            analysis: size of a light analysis transform.
            codec: replaces `teacher` in a trained model's file: describes that codec, so that the file is complete.
        """

        teacher: Annotated[str, AfterValidator(_absolute), distillkit.Source()] | None = None
        synthesis: LightSize | None = None
        analysis: LightSize | None = None
        codec: KeptCodec | None = None

        @model_validator(mode="before")
        @classmethod
        def _fill(cls, values: Any) -> Any:
            if not isinstance(values, dict):
                return values
            first = {} if values.get("codec") else {"teacher": "zoo:lite-student"}
            size = {} if values.get("analysis") is not None else {"synthesis": LightSize()}
            return first | size | values

        @model_validator(mode="after")
        def _one_of_each(self) -> LightPair.Config:
            if self.teacher is not None and self.codec is not None:
                raise ValueError("codec: expected none beside a teacher; only a trained model's file has it.")
            if self.synthesis is not None and self.analysis is not None:
                raise ValueError("analysis: expected none beside a synthesis; make one transform light at a time.")
            return self

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Return none: what a light codec costs follows from the codec that is given."""
        return []

    @classmethod
    def students_to_order(cls, order: distillkit.Order) -> distillkit.Offer:
        """Return codecs with a light synthesis, or with a light analysis for fast encoding."""
        name = "analysis" if order.is_encoder else "synthesis"
        ladders = [
            [{"teacher": order.teacher, name: {"width": width, "blocks": blocks}} for width in widths]
            for blocks, widths in widths_by_depth(smallest=8)
        ]
        optimizer = {"name": "muon", "learning_rate": 3e-3, "rate_schedule": "cosine", "warmup_steps": 100}
        changes: dict[str, Any] = {"losses": {}, "schedule": {"name": "core.constant"}, "optimizer": optimizer}
        return distillkit.Offer(ladders, changes | {"num_steps": 6000, "data.crop": 128, "data.num_crops": 4096})

    @property
    def pretrained_teacher(self) -> bool:
        """Whether the teacher is trained already: always, unless a trained model's file fills it."""
        return self.config.teacher is not None

    @property
    def teacher_lmbda(self) -> float | distillkit.LmbdaRange | None:
        """The trade-off that the teacher was trained for."""
        return self.kept.lmbda

    @cached_property
    def _trained(self) -> distillkit.TrainedModel | None:
        return distillkit.load_model(self.config.teacher) if self.config.teacher is not None else None

    @cached_property
    def _latents(self) -> Latents | None:
        """What gives the teacher's latents in training; teacher and student share what was computed."""
        from .light_codec import Latents

        if self.config.teacher is None or self.config.synthesis is None:
            return None
        return Latents(distillkit.load_model(self.config.teacher).codec)

    @property
    def kept(self) -> KeptCodec:
        """What codec all else is kept of."""
        model = self._trained
        if model is None:
            return self.config.codec
        names = ("pair", "options", "part", "lmbda", "fingerprint")
        return KeptCodec.model_validate({name: getattr(model, name) for name in names})

    def options_of(self, part: Literal["teacher", "student"], module: nn.Module) -> dict[str, Any]:
        """Return the pair's options with the codec's description in place of its file."""
        config = self.config.model_copy(update={"teacher": None, "codec": self.kept})
        return config.model_dump(mode="json")

    def sources_of(self, part: Literal["teacher", "student"]) -> list[str]:
        """Return the options that name another codec's file, here or in what is kept of the codec."""
        if self.config.codec is None:
            return super().sources_of(part)
        return [f"codec.{name}" for name in self._kept_pair().sources_of(self.config.codec.part)]

    def build_teacher(self) -> distillkit.CodecAdapter:
        """Return the trained codec; a run that trains it for a light synthesis moves its own synthesis only."""
        from .light_codec import light_codec

        codec = self._codec()
        return codec if self._latents is None else light_codec(codec, ("g_s.*",), (), self._latents)

    def build_student(self) -> distillkit.CodecAdapter:
        """Return the codec with its light transform, which is random.

        Raises:
            PairError: the codec has no transform of that name, or one of another kind.
        """
        from .light_codec import light_codec
        from .light_net import replace_transform

        codec = self._codec()
        name, size = ("g_s", self.config.synthesis) if self.config.synthesis else ("g_a", self.config.analysis)
        replace_transform(codec, name, size)
        return light_codec(codec, (f"{name}.*",), (self.kept.fingerprint,), self._latents)

    def _codec(self) -> distillkit.CodecAdapter:
        """Return the codec with the teacher's weights, or with random ones if a file fills it."""
        if self.config.teacher is not None:
            return distillkit.load_model(self.config.teacher).codec
        pair = self._kept_pair()
        is_student = self.config.codec.part == "student"
        return distillkit.as_codec(pair.build_student() if is_student else pair.build_teacher())

    def _kept_pair(self) -> distillkit.CodecPair:
        kept: KeptCodec = self.config.codec
        where = f"models.light: codec of pair {kept.pair}"
        pair_class, config = distillkit.load_plugins().configure("pair", kept.pair, kept.options, where)
        return pair_class(config)
