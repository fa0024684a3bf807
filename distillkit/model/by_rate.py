"""Several codecs of one rate and one architecture, used as one codec of many rates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from ..errors import PairError
from .adapters import CodecOutput, CompressedLatents
from .conditioned import MIDDLE, ConditionedAdapter
from .file import TrainedModel
from .lmbda import LmbdaRange


@final
class NearestRate(ConditionedAdapter):
    """Several trained codecs of one architecture: each picture is run by the one of the nearest lambda.

    There is one network, whose weights are exchanged, so that it has taps like any other. Quality 0 means the smallest
    of the lambdas, 1 the largest; nearest is meant by the logarithm.

    Attributes:
        lmbda: the range from the smallest lambda to the largest.
        fingerprint: of all the models together.

    Args:
        models: by name; two or more, whose lambdas differ.

    Raises:
        PairError: they are not of one architecture, or two have one lambda, or one has many rates.
    """

    mixes_qualities = False

    def __init__(self, models: Mapping[str, TrainedModel]) -> None:
        by_lmbda: dict[float, tuple[str, TrainedModel]] = {}
        first_name, first = next(iter(models.items()))
        for name, model in models.items():
            if isinstance(model.lmbda, LmbdaRange):
                raise PairError(
                    f"recipe teachers.{name}: expected a codec of one rate among several, got one of many rates; "
                    "name it alone, as `teacher`."
                )
            if (model.pair, model.part, model.options) != (first.pair, first.part, first.options):
                raise PairError(
                    f"recipe teachers.{name}: expected the architecture of {first_name}, {first.part} of {first.pair} "
                    f"with {first.options}, got {model.part} of {model.pair} with {model.options}; take teachers that "
                    "differ only in lmbda, or name one teacher in each loss."
                )
            if model.lmbda in by_lmbda:
                raise PairError(
                    f"recipe teachers.{name}: expected another lmbda than that of {by_lmbda[model.lmbda][0]}, got "
                    f"{model.lmbda:g}; leave one of them out."
                )
            by_lmbda[model.lmbda] = name, model
        lmbdas = sorted(by_lmbda)
        self.lmbda = LmbdaRange(lmbdas[0], lmbdas[-1])
        self._qualities = [self.lmbda.quality_of(lmbda) for lmbda in lmbdas]
        self._codec = by_lmbda[lmbdas[0]][1].codec
        self.module, self.stride, self.samples = self._codec.module, self._codec.stride, self._codec.samples
        self._weights: list[dict[str, Tensor]] = [
            {name: tensor.detach() for name, tensor in by_lmbda[lmbda][1].codec.module.named_parameters()}
            for lmbda in lmbdas
        ]
        joined = "".join(by_lmbda[lmbda][1].fingerprint for lmbda in lmbdas)
        self.fingerprint = hashlib.sha256(joined.encode()).hexdigest()

    @override
    def forward(self, images: Tensor, quality: Tensor | float = MIDDLE) -> CodecOutput:
        values = torch.as_tensor(quality, dtype=torch.float32).reshape(-1)
        chosen = {self._nearest(float(value)) for value in values}
        if len(chosen) > 1:
            raise PairError("recipe teachers: expected one quality at a time, got several; run pictures one by one.")
        self._take(chosen.pop())
        return self._codec.forward(images)

    @override
    def compress(self, images: Tensor, quality: float = MIDDLE) -> CompressedLatents:
        raise PairError("recipe teachers: several models teach together, but do not code; compress with one of them.")

    @override
    def decompress(self, latents: CompressedLatents, quality: float = MIDDLE) -> Tensor:
        raise PairError("recipe teachers: several models teach together, but do not code; decompress with one of them.")

    def _nearest(self, quality: float) -> int:
        if math.isnan(quality):
            raise PairError("recipe teachers: expected a quality from 0 to 1, got nan; give one.")
        return min(range(len(self._qualities)), key=lambda index: abs(self._qualities[index] - quality))

    def _take(self, index: int) -> None:
        weights = self._weights[index]
        for name, parameter in self.module.named_parameters():
            if weights[name].device != parameter.device:
                weights[name] = weights[name].to(parameter.device)
            parameter.data = weights[name]
