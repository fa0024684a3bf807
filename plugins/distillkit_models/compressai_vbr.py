"""distillkit's adapter for CompressAI's variable-rate codecs: a quality instead of their gain."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

import distillkit


@final
class CompressAIVbr(distillkit.ConditionedAdapter):
    """One of CompressAI's `*-vbr` codecs.

    Such a codec has one gain for all channels, and learns how entropy parameters and reconstruction follow from it. A
    quality in [0, 1] means a gain between its lowest and highest one, interpolated linearly between the logarithms of
    all. The gains themselves are not trained, in CompressAI as here. A batch has one gain, so images of different
    qualities are run one at a time.

    Source: Kamisli, Racape and Choi (2024), arXiv 2402.18930.
    """

    mixes_qualities = False

    def __init__(self, module: nn.Module) -> None:
        """Take the codec as it is."""
        self.module = module
        self._codec = distillkit.CompressAIAdapter(module)
        self.stride = self._codec.stride
        self._has_steps = bool(getattr(module, "vr_entbttlnck", False))

    @override
    def forward(self, images: Tensor, quality: Tensor | float = distillkit.MIDDLE) -> distillkit.CodecOutput:
        qualities = quality.tolist() if isinstance(quality, Tensor) and quality.ndim else [float(quality)]
        if len(set(qualities)) == 1:
            return self._forward(images, qualities[0])
        outputs = [self._forward(images[i : i + 1], each) for i, each in enumerate(qualities)]
        likelihoods = {key: torch.cat([each.likelihoods[key] for each in outputs]) for key in outputs[0].likelihoods}
        return distillkit.CodecOutput(torch.cat([output.x_hat for output in outputs]), likelihoods)

    @override
    def compress(self, images: Tensor, quality: float = distillkit.MIDDLE) -> distillkit.CompressedLatents:
        with self._tables(quality), self._without_means():
            output = cast(Any, self.module).compress(images, inputscale=self._gain(quality))
        return distillkit.CompressedLatents(output["strings"], output["shape"])

    @override
    def decompress(self, latents: distillkit.CompressedLatents, quality: float = distillkit.MIDDLE) -> Tensor:
        with self._tables(quality):
            output = cast(Any, self.module).decompress(latents.strings, latents.shape, inputscale=self._gain(quality))
        return output["x_hat"]

    @override
    def aux_loss(self) -> Tensor | None:
        return self._codec.aux_loss()

    @override
    def quantile_parameters(self) -> list[nn.Parameter]:
        return self._codec.quantile_parameters()

    @override
    def update(self) -> None:
        self._codec.update()
        if self._has_steps:
            self._forget_tables()

    def _gain(self, quality: float) -> Tensor:
        logs = cast(Tensor, self.module.Gain).detach().abs().log()
        place = quality * (len(logs) - 1)
        low = min(int(place), len(logs) - 2)
        return torch.lerp(logs[low], logs[low + 1], place - low).exp()

    def _forward(self, images: Tensor, quality: float) -> distillkit.CodecOutput:
        # In training mode the codec knows the gains of its levels alone: here it has one level, with the gain wanted.
        gain = {"Gain": self._gain(quality).reshape(1)}
        output = functional_call(self.module, gain, (images,), {"s": 0})
        return distillkit.CodecOutput(output["x_hat"], output["likelihoods"])

    @contextmanager
    def _tables(self, quality: float) -> Generator[None]:
        """Give the hyper-latent the tables of a quality, where its step size follows from the gain."""
        module = cast(Any, self.module)
        if not self._has_steps:
            yield
            return
        step = module.lower_bound_zqstep(module.gayn2zqstep(1 / self._gain(quality).view(1)))
        try:
            module.entropy_bottleneck.update_variable(force=True, qs=step)
            yield
        finally:
            self._forget_tables()

    def _forget_tables(self) -> None:
        """Empty the tables that hold for one quality only: they are no part of the model."""
        bottleneck = cast(Any, self.module).entropy_bottleneck
        for name in ("_offset", "_quantized_cdf", "_cdf_length"):
            setattr(bottleneck, name, getattr(bottleneck, name).new_empty(0))

    @contextmanager
    def _without_means(self) -> Generator[None]:
        """Have latents less their means compressed without means, as they are decompressed: the same symbols."""
        model = cast(Any, self.module).gaussian_conditional
        compress = model.compress
        model.compress = lambda inputs, indexes, means=None: compress(
            inputs if means is None else inputs - means, indexes
        )
        try:
            yield
        finally:
            model.compress = compress
