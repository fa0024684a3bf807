"""Codecs of many rates: one module, which gets a quality with each picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from ..errors import PairError
from .adapters import CodecAdapter, CodecOutput, CompressedLatents
from .lmbda import Lmbda, LmbdaRange

FIXED_POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)  #: qualities at which a codec of many rates is measured
MIDDLE = 0.5  #: the quality at which a codec of many rates is run when none is given, as to probe it


def measured_at(lmbda: Lmbda, beside: Sequence[Lmbda]) -> tuple[float | None, ...]:
    """Return the qualities at which a model is measured: (None,) for one of a single rate.

    Args:
        lmbda: of the model.
        beside: of the models that it is compared with. If all are of a single rate, a model of many rates is measured
            at their lambdas, as far as it has them; else at `FIXED_POINTS`.
    """
    if not isinstance(lmbda, LmbdaRange):
        return (None,)
    if any(isinstance(each, LmbdaRange) for each in beside):
        return FIXED_POINTS
    shared = (each for each in beside if isinstance(each, float) and lmbda.holds(each))
    return tuple(map(lmbda.quality_of, shared)) or FIXED_POINTS


class ConditionedAdapter(CodecAdapter):
    """A codec whose rate is chosen at each call: subclass it as you would `CodecAdapter`.

    Quality runs from 0, the lowest rate, to 1, the highest. In training quality q means the trade-off
    `lmbda = low * (high / low) ** q` of the recipe's range.

    Attributes:
        mixes_qualities: whether the images of one batch may have different qualities. Where not, images are run one at
            a time in training.
    """

    mixes_qualities: bool = True

    @override
    @abstractmethod
    def forward(self, images: Tensor, quality: Tensor | float = MIDDLE) -> CodecOutput:
        """Run the codec on `images`, shape (B, C, H, W), range [0, 1].

        Args:
            images: the batch.
            quality: in [0, 1], of all images, or shape (B,), of each.
        """

    @override
    @abstractmethod
    def compress(self, images: Tensor, quality: float = MIDDLE) -> CompressedLatents:
        """Entropy-code `images`, shape (B, C, H, W), range [0, 1], at one quality in [0, 1]."""

    @override
    @abstractmethod
    def decompress(self, latents: CompressedLatents, quality: float = MIDDLE) -> Tensor:
        """Return the reconstruction, shape (B, C, H, W), that `compress` coded at this quality."""


@final
class FixedQuality(CodecAdapter):
    """A conditioned codec at one quality: a codec like any other."""

    def __init__(self, codec: ConditionedAdapter, quality: Tensor | float) -> None:
        """Bind the two; nothing is copied.

        Args:
            codec: the codec.
            quality: in [0, 1]; of shape (B,) for `forward` alone.
        """
        self.module, self.stride, self.samples = codec.module, codec.stride, codec.samples
        self._codec, self._quality = codec, quality

    @override
    def forward(self, images: Tensor) -> CodecOutput:
        return self._codec.forward(images, self._quality)

    @override
    def compress(self, images: Tensor) -> CompressedLatents:
        return self._codec.compress(images, float(self._quality))

    @override
    def decompress(self, latents: CompressedLatents) -> Tensor:
        return self._codec.decompress(latents, float(self._quality))


def join_outputs(outputs: Sequence[CodecOutput]) -> CodecOutput | None:
    """Return what a codec gave for the parts of a batch as one output; None of none."""
    if len(outputs) < 2:
        return outputs[0] if outputs else None
    likelihoods = {name: torch.cat([each.likelihoods[name] for each in outputs]) for name in outputs[0].likelihoods}
    return CodecOutput(torch.cat([each.x_hat for each in outputs]), likelihoods)


def at_quality(codec: CodecAdapter, quality: Tensor | float | None) -> CodecAdapter:
    """Return a codec at one quality; without a quality, the codec itself.

    Args:
        codec: the codec.
        quality: in [0, 1], or shape (B,), one for each image of the batches that `forward` will see; None for a codec
            of one rate.

    Raises:
        PairError: a quality is given and the codec has one rate, or it is outside its range.
    """
    if quality is None:
        return codec
    name = type(codec.module).__name__
    if not isinstance(codec, ConditionedAdapter):
        raise PairError(
            f"codec {name}: expected one of many rates, got one that has a single rate, and quality {quality}; leave "
            "the quality out, or take a variable-rate model."
        )
    if isinstance(quality, (int, float)) and not 0 <= quality <= 1:
        raise PairError(f"codec {name}: expected a quality from 0 to 1, got {quality}; correct it.")
    return FixedQuality(codec, quality)
