"""The running mean of the weights."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, final

import torch
from pydantic import Field
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ...hooks.components import ComponentConfig
from ...model.adapters import CodecAdapter
from .base import StepExtension, Trained


@final
class Ema(StepExtension):
    """An exponential moving average of the weights, which is what is validated and saved.

    a_0 = w_0;  a_t = d a_(t-1) + (1 - d) w_t,  d = min(decay, (1 + t) / (10 + t))

    w_t: every parameter of the codec after step t, counted from 0. The smaller d of the first steps lets the mean
    forget the initial weights.

    Source: Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging.
    Departure: exponential, with the rising decay that TensorFlow's ExponentialMovingAverage has.
    """

    class Config(ComponentConfig):
        """Options.

        Attributes:
            decay: d once many steps are done; the mean is over about 1 / (1 - decay) steps.
        """

        decay: Annotated[float, Field(gt=0, lt=1)] = 0.999

    def __init__(self, config: Config, trained: Trained) -> None:
        super().__init__(config, trained)
        self._mean: list[Tensor] = []

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the mean towards the weights."""
        weights = [parameter.detach() for parameter in self.codec.module.parameters()]
        if not self._mean:
            self._mean = [weight.clone() for weight in weights]
            return
        decay = min(self.config.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._mean, weights, step)

    @contextmanager
    def as_saved(self, codec: CodecAdapter) -> Generator[CodecAdapter]:
        """Put the mean into the codec for as long as the context lasts."""
        weights = list(codec.module.parameters())
        before = [weight.detach().clone() for weight in weights]
        self._set(self._mean)
        try:
            yield codec
        finally:
            self._set(before)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for weight, value in zip(self.codec.module.parameters(), values, strict=False):
            weight.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean."""
        return {"mean": self._mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a mean."""
        weights = self.codec.module.parameters()
        self._mean = [mean.to(weight.device) for mean, weight in zip(state["mean"], weights, strict=False)]
