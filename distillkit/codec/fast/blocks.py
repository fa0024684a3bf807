"""Blocks of transforms, computed with less memory traffic: the same values up to rounding.

Features are megabytes at half of the resolution: each pass over them costs as much as a convolution. So normalisations
are computed by pieces that fit in the cache, and shuffles move whole pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CACHED_BYTES = 2**20
_NARROW = 16  # output channels


def replace_blocks(network: nn.Module) -> nn.Module:
    """Replace blocks inside by others that compute the same with less memory traffic on channels-last features."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "GDN" and hasattr(child, "beta_reparam"):
                setattr(parent, name, Normalisation(child))
            elif doubles_size(child) and child.out_channels < _NARROW:  # type: ignore[operator] - oneDNN is slow there
                setattr(parent, name, as_convolution(child))
    for parent in list(network.modules()):
        if type(parent).forward is nn.Sequential.forward:
            children: list[Any] = list(parent.children())
            for index, (first, second) in enumerate(pairwise(children)):
                if type(first) is nn.Conv2d and type(second) is nn.PixelShuffle:
                    parent[index + 1] = Shuffle(first, second.upscale_factor)  # type: ignore[index]
                if type(first) is nn.PixelUnshuffle and type(second) is nn.Conv2d and second.groups == 1:
                    parent[index] = Unshuffle(first.downscale_factor, second)  # type: ignore[index]
    return network


def doubles_size(layer: nn.Module) -> bool:
    """Return whether a layer is a transposed convolution that `as_convolution` can replace."""
    if type(layer) is not nn.ConvTranspose2d:
        return False
    sizes: Any = zip(layer.kernel_size, layer.output_padding, layer.padding, strict=True)
    doubles = all(kernel + extra - 2 * pad == 2 for kernel, extra, pad in sizes)
    return doubles and (layer.stride, layer.dilation, layer.groups) == ((2, 2), (1, 1), 1)


def as_convolution(layer: Any) -> nn.Sequential:
    """Return a transposed convolution that doubles the size as an ordinary one, of four outputs each, and a shuffle."""
    rows, columns = (_phases(kernel, pad) for kernel, pad in zip(layer.kernel_size, layer.padding, strict=True))
    reach = max(abs(offset) for phases in (rows, columns) for _, _, offset in phases)
    convolution = nn.Conv2d(layer.in_channels, 4 * layer.out_channels, 2 * reach + 1, padding=reach).to(layer.weight)
    weight = torch.zeros_like(convolution.weight).unflatten(0, (layer.out_channels, 2, 2))
    for row, phase_row, offset_row in rows:
        for column, phase_column, offset_column in columns:
            taps = layer.weight.detach()[:, :, row, column].t()
            weight[:, phase_row, phase_column, :, reach + offset_row, reach + offset_column] = taps
    convolution.weight.data = weight.flatten(0, 2)
    bias = torch.zeros(layer.out_channels).to(layer.weight) if layer.bias is None else layer.bias.detach()
    convolution.bias.data = bias.repeat_interleave(4)  # type: ignore[union-attr]
    return nn.Sequential(convolution, nn.PixelShuffle(2)).requires_grad_(False)


def _phases(kernel: int, pad: int) -> list[tuple[int, int, int]]:
    """Return (place in the kernel, output position modulo 2, input position less half the output's) of every place."""
    return [(place, (place + pad) % 2, ((place + pad) % 2 + pad - place) // 2) for place in range(kernel)]


@final
class Normalisation(nn.Module):
    """Generalised divisive normalisation, its parameters computed once.

    Source: Ballé et al. (2016), arXiv 1511.06281.
    """

    def __init__(self, gdn: Any) -> None:
        super().__init__()
        beta, gamma = gdn.beta_reparam(gdn.beta).detach(), gdn.gamma_reparam(gdn.gamma).detach()
        self.register_buffer("beta", beta)
        self.register_buffer("gamma", gamma[:, :, None, None])
        self.inverse = bool(gdn.inverse)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, shape (B, C, H, W), normalised."""
        out = torch.empty_like(x)
        num_parts = max(x.numel() * x.element_size() // _CACHED_BYTES, 1) if x.device.type == "cpu" else 1
        rows = -(-x.shape[2] // num_parts)  # each position stands alone: a few rows at a time stay in the cache
        buffer = torch.empty_like(x[:, :, :rows])
        for part, out_part in zip(x.split(rows, 2), out.split(rows, 2), strict=True):
            norm = buffer[:, :, : part.shape[2]]
            torch.square(part, out=norm)
            torch.sqrt(F.conv2d(norm, self.gamma, self.beta), out=norm)  # type: ignore[arg-type]
            (torch.mul if self.inverse else torch.div)(part, norm, out=out_part)
        return out


@final
class Shuffle(nn.Module):
    """Pixel shuffle whose channels are ordered so that it moves whole pixels of channels-last features.

    Args:
        convolution: what comes before; its outputs are put in that order.
        factor: of the upsampling.
    """

    def __init__(self, convolution: nn.Conv2d, factor: int) -> None:
        super().__init__()
        self.factor = factor
        order = torch.arange(convolution.out_channels).reshape(-1, factor**2).t().flatten()
        convolution.weight.data = convolution.weight.data[order.to(convolution.weight.device)]
        if convolution.bias is not None:
            convolution.bias.data = convolution.bias.data[order.to(convolution.bias.device)]

    def forward(self, x: Tensor) -> Tensor:
        """Return features of shape (B, C / factor^2, H factor, W factor) for x of shape (B, C, H, W)."""
        batch, channels, height, width = x.shape
        factor, out = self.factor, channels // self.factor**2
        blocks = x.permute(0, 2, 3, 1).reshape(batch, height, width, factor, factor, out).transpose(2, 3)
        return blocks.reshape(batch, height * factor, width * factor, out).permute(0, 3, 1, 2)


@final
class Unshuffle(nn.Module):
    """Pixel unshuffle whose channels are ordered so that it moves whole pixels of channels-last features.

    Args:
        factor: of the downsampling.
        convolution: what comes after; its inputs are put in that order.
    """

    def __init__(self, factor: int, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.factor = factor
        order = torch.arange(convolution.in_channels).reshape(-1, factor**2).t().flatten()
        convolution.weight.data = convolution.weight.data[:, order.to(convolution.weight.device)]

    def forward(self, x: Tensor) -> Tensor:
        """Return features of shape (B, C factor^2, H / factor, W / factor) for x of shape (B, C, H, W)."""
        batch, channels, height, width = x.shape
        factor = self.factor
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height // factor, factor, width // factor, factor * channels)
        blocks = pixels.transpose(2, 3).reshape(batch, height // factor, width // factor, factor**2 * channels)
        return blocks.permute(0, 3, 1, 2)
