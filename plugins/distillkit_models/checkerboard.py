"""The entropy model of the shipped codecs: a mean-scale hyper-prior with a checkerboard context."""

from __future__ import annotations

import warnings
from typing import Protocol

from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # compressai imports torch-geometric, which scripts functions
    from compressai.entropy_models import EntropyBottleneck
    from compressai.latent_codecs import (
        CheckerboardLatentCodec,
        GaussianConditionalLatentCodec,
        HyperLatentCodec,
        HyperpriorLatentCodec,
    )
    from compressai.layers import CheckerboardMaskedConv2d, conv1x1


class EntropySize(Protocol):
    """What the entropy model needs to know of a codec's size; see the presets for what each figure means."""

    @property
    def latent(self) -> int: ...  # noqa: D102
    @property
    def hyper_width(self) -> int: ...  # noqa: D102
    @property
    def entropy_width(self) -> int: ...  # noqa: D102
    @property
    def context_kernel(self) -> int: ...  # noqa: D102


def checkerboard_codec(size: EntropySize) -> HyperpriorLatentCodec:
    """Return the latent codec: y, shape (B, M, h, w), is coded in two passes, z, shape (B, hyper_width, h / 4, w / 4).

    Source: Minnen et al. (2018), arXiv 1809.02736, for the hyper-prior; He et al. (2021), arXiv 2103.15306, for the
    context; the layers are those of Cheng et al. (2020), arXiv 2001.01568.

    Departure: the hyper-prior's convolutions repeat the border, where those of CompressAI put zeros. z of a training
    crop of 128 pixels has 2x2 positions, all at the border: with zeros, the networks never see the inside of a picture.
    """
    context = CheckerboardMaskedConv2d(
        size.latent, 2 * size.entropy_width, kernel_size=size.context_kernel, padding=size.context_kernel // 2
    )
    y_codec = CheckerboardLatentCodec(
        latent_codec={"y": GaussianConditionalLatentCodec(quantizer="ste")},
        entropy_parameters=entropy_parameters(size),
        context_prediction=context,
        forward_method="twopass",
    )
    z_codec = HyperLatentCodec(
        EntropyBottleneck(size.hyper_width), hyper_analysis(size), hyper_synthesis(size), quantizer="ste"
    )
    return HyperpriorLatentCodec(latent_codec={"y": y_codec, "hyper": z_codec})


def hyper_analysis(size: EntropySize) -> nn.Sequential:
    """Return h_a: y, shape (B, M, h, w), to z, shape (B, hyper_width, h / 4, w / 4)."""
    width = size.hyper_width
    return _chain(
        _convolution(size.latent, width),
        _convolution(width, width),
        _convolution(width, width, stride=2),
        _convolution(width, width),
        _convolution(width, width, stride=2),
    )


def hyper_synthesis(size: EntropySize) -> nn.Sequential:
    """Return h_s: quantised z to 2 E channels, shape (B, 2 E, h, w), for the entropy parameters."""
    width, wider = size.hyper_width, size.hyper_width * 3 // 2
    return _chain(
        _convolution(width, width),
        _upsampling(width, width),
        _convolution(width, wider),
        _upsampling(wider, wider),
        _convolution(wider, 2 * size.entropy_width),
    )


def entropy_parameters(size: EntropySize) -> nn.Sequential:
    """Return the 1x1 network from context and hyper-prior, 4 E channels, to scales and means, 2 M channels."""
    width = size.entropy_width
    return _chain(
        conv1x1(4 * width, width * 10 // 3),
        conv1x1(width * 10 // 3, width * 8 // 3),
        conv1x1(width * 8 // 3, 2 * size.latent),
    )


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(inputs, outputs, 3, stride))


def _upsampling(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(inputs, 4 * outputs, 3), nn.PixelShuffle(2))


def _chain(*layers: nn.Module) -> nn.Sequential:
    """Join layers by LeakyReLU; not in place, so that a tap on a layer keeps what it captured."""
    chained = [module for layer in layers for module in (layer, nn.LeakyReLU())]
    return nn.Sequential(*chained[:-1])
