"""The analysis and synthesis transforms as they run fastest: channels-last, in bfloat16 on devices that compute in it.

Nothing that the entropy coder needs to be exact goes through them, so their rounding costs a little quality and never a
file. The last block of each runs in float32: bfloat16's 8 bits are too few for a latent about to be rounded, or for
pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .stopwatch import Stopwatch
from .tiles import find_margin, run_in_tiles

_CACHED_BYTES = 2**19


@final
class Transform(nn.Module):
    """A transform that takes and returns tensors of any floating type and memory format.

    Args:
        network: the transform; it is changed, so pass a copy.
        dtype: of its computation, but for the last child of a sequence where that is lower than float32.
        out_dtype: of what it returns.
        stopwatch: counts its time.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, out_dtype: torch.dtype, stopwatch: Stopwatch) -> None:
        super().__init__()
        self._stopwatch = stopwatch
        self._margins: dict[tuple[int, int], int | None] = {}
        self.strides: tuple[int, int] | None = None  # of a picture that is to be cut into tiles: rows, columns
        self.tile_strides = 0
        replace_blocks(network)
        self._dtype, self._out_dtype = dtype, out_dtype
        self.network = network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if dtype != torch.float32 and isinstance(network, nn.Sequential) and len(network) > 1:
            network[-1].float().register_forward_pre_hook(lambda _, args: tuple(a.float() for a in args))

    def forward(self, features: Tensor) -> Tensor:
        """Return what the network returns for `features`, shape (B, C, H, W); in tiles if `strides` are set."""
        with self._stopwatch.time("transform"):
            if self.strides is None:
                return self._run(features)
            align = features.shape[2] // self.strides[0]
            if align < 1 or features.shape[2:] != (align * self.strides[0], align * self.strides[1]):
                return self._run(features)  # its input does not grow with the picture
            key = features.shape[1], align
            if key not in self._margins:
                self._margins[key] = find_margin(self.network, *key)
            margin = self._margins[key]
            if margin is None:
                return self._run(features)
            return run_in_tiles(self._run, features, align * self.tile_strides, margin)

    def _run(self, features: Tensor) -> Tensor:
        out = self.network(features.to(self._dtype, memory_format=torch.channels_last))
        return out.to(self._out_dtype)


def replace_blocks(network: nn.Module) -> None:
    """Replace blocks inside by others that compute the same with less memory traffic on channels-last features."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "GDN" and hasattr(child, "beta_reparam"):
                setattr(parent, name, _Normalisation(child))
        if type(parent).forward is nn.Sequential.forward:
            children: list[Any] = list(parent.children())
            for index, (first, second) in enumerate(pairwise(children)):
                if type(first) is nn.Conv2d and type(second) is nn.PixelShuffle:
                    parent[index + 1] = _Shuffle(first, second.upscale_factor)  # type: ignore[index]


@final
class _Normalisation(nn.Module):
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
        out = torch.empty_like(x)
        num_parts = max(x.numel() * x.element_size() // _CACHED_BYTES, 1) if x.device.type == "cpu" else 1
        rows = -(-x.shape[2] // num_parts)  # each position stands alone: a few rows at a time stay in the cache
        for part, out_part in zip(x.split(rows, 2), out.split(rows, 2), strict=True):
            norm = F.conv2d(part * part, self.gamma, self.beta)  # type: ignore[arg-type]
            torch.mul(part, norm.sqrt_() if self.inverse else norm.rsqrt_(), out=out_part)
        return out


@final
class _Shuffle(nn.Module):
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
        batch, channels, height, width = x.shape
        factor, out = self.factor, channels // self.factor**2
        blocks = x.permute(0, 2, 3, 1).reshape(batch, height, width, factor, factor, out).transpose(2, 3)
        return blocks.reshape(batch, height * factor, width * factor, out).permute(0, 3, 1, 2)
