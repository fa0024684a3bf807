"""Light transforms for any codec's latent: blocks at 1/8 resolution between pixels and latent."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

import distillkit

from .lowres_net import PATCH, ChannelsLast, LowResBlock


class Size(Protocol):
    """What a light transform needs to know of its size."""

    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def blocks(self) -> int: ...  # noqa: D102


def light_synthesis(latent: int, reduction: int, size: Size, channels: int = 3) -> nn.Sequential:
    """Return a light g_s: quantised y, shape (B, latent, H / reduction, W / reduction), to the image.

    What leaves its blocks is the tap `synthesis.1/8`.

    Args:
        latent: channels of y.
        reduction: 8 or a multiple.
        size: width and blocks.
        channels: of the image.
    """
    last = nn.Conv2d(size.width, channels * PATCH**2, 1)
    nn.init.constant_(last.bias, 0.5)  # grey, the middle of the image's range
    return ChannelsLast(
        nn.Sequential(
            nn.Conv2d(latent, size.width * (reduction // PATCH) ** 2, 1), nn.PixelShuffle(reduction // PATCH)
        ),
        *(LowResBlock(size.width) for _ in range(size.blocks)),
        nn.Sequential(last, nn.PixelShuffle(PATCH)),
    )


def light_analysis(latent: int, reduction: int, size: Size, channels: int = 3) -> nn.Sequential:
    """Return a light g_a: the mirror of `light_synthesis`."""
    return ChannelsLast(
        nn.Sequential(nn.PixelUnshuffle(PATCH), nn.Conv2d(channels * PATCH**2, size.width, 1)),
        *(LowResBlock(size.width) for _ in range(size.blocks)),
        nn.Conv2d(size.width, latent, 3, stride=reduction // PATCH, padding=1),
    )


def replace_transform(codec: distillkit.CodecAdapter, name: str, size: Size) -> None:
    """Put a light transform in the place of a codec's `g_s` or `g_a`.

    Raises:
        PairError: the codec has none of that name, or its latent is not at 1/8 of the image's sides or a multiple.
    """
    module = codec.module
    where = f"models.light: codec {type(module).__name__}"
    if not isinstance(getattr(module, "g_s", None), nn.Module) or not isinstance(
        getattr(module, "g_a", None), nn.Module
    ):
        raise distillkit.PairError(f"{where}: expected transforms called g_a and g_s, got others; rename them.")
    channels, reduction = _latent_size(codec)
    if reduction % PATCH:
        raise distillkit.PairError(
            f"{where}: expected a latent at 1/{PATCH} of the image's sides or a multiple, got 1/{reduction}; its "
            "transforms have no light form here."
        )
    build = light_synthesis if name == "g_s" else light_analysis
    setattr(module, name, transform := build(channels, reduction, size, codec.samples.channels))
    if isinstance(codec, distillkit.GainedCodec):
        codec.attach(name, transform)


@torch.no_grad()
def _latent_size(codec: distillkit.CodecAdapter) -> tuple[int, int]:
    """Return the latent's channels, and how many times its sides are smaller than the image's."""
    shapes: list[tuple[int, ...]] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        shapes.append(tuple(args[0].shape))

    synthesis = codec.module.g_s
    assert isinstance(synthesis, nn.Module)
    handle = synthesis.register_forward_pre_hook(note)
    training = codec.module.training
    try:
        codec.module.eval()
        codec.forward(torch.zeros(1, codec.samples.channels, codec.stride, codec.stride))
    finally:
        handle.remove()
        codec.module.train(training)
    return shapes[0][1], codec.stride // shapes[0][2]
