"""The analysis and synthesis transforms as they run fastest: channels-last, in bfloat16 on devices that compute in it.

Nothing that the entropy coder needs to be exact goes through them, so their rounding costs a little quality and never a
file. The last block of the analysis runs in float32: bfloat16's 8 bits are too few for a latent about to be rounded.
The last convolution of the synthesis gives pixels less middle grey, of which bfloat16 resolves half a level of 255.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .stopwatch import Stopwatch
from .tiles import find_margin, run_in_tiles

_CACHED_BYTES = 2**21
_NARROW = 16  # output channels


@final
class Transform(nn.Module):
    """A transform that takes and returns tensors of any floating type and memory format.

    Args:
        network: the transform; it is changed, so pass a copy.
        dtype: of its computation, but for the last child of a sequence where that is lower than float32.
        out_dtype: of what it returns.
        stopwatch: counts its time.
        centre: of the output's range; where the last child is a convolution, it gives the difference from it, in
            `dtype`.
    """

    def __init__(
        self,
        network: nn.Module,
        dtype: torch.dtype,
        out_dtype: torch.dtype,
        stopwatch: Stopwatch,
        centre: float | None = None,
    ) -> None:
        super().__init__()
        self._stopwatch = stopwatch
        self._centre = 0.0
        self._margins: dict[tuple[int, int], int | None] = {}
        self.strides: tuple[int, int] | None = None  # of a picture that is to be cut into tiles: rows, columns
        self.tile_strides = 0
        network = replace_blocks(network)
        self._dtype, self._out_dtype = dtype, out_dtype
        last = network[-1] if isinstance(network, nn.Sequential) and len(network) > 1 else None
        bias = _last_bias(last) if dtype != torch.float32 and centre is not None else None
        if bias is not None and centre is not None:
            self._centre = centre
            bias.data -= centre
        self.network = network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if dtype != torch.float32 and bias is None and last is not None:
            last.float().register_forward_pre_hook(lambda _, args: tuple(a.float() for a in args))

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
        out = self.network(features.to(self._dtype, memory_format=torch.channels_last)).to(self._out_dtype)
        return out + self._centre if self._centre else out


def replace_blocks(network: nn.Module) -> nn.Module:
    """Replace blocks inside by others that compute the same with less memory traffic on channels-last features."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "GDN" and hasattr(child, "beta_reparam"):
                setattr(parent, name, _Normalisation(child))
            elif _is_narrow_upsampling(child):
                setattr(parent, name, _as_convolution(child))
    for parent in list(network.modules()):
        if type(parent).forward is nn.Sequential.forward:
            children: list[Any] = list(parent.children())
            for index, (first, second) in enumerate(pairwise(children)):
                if type(first) is nn.Conv2d and type(second) is nn.PixelShuffle:
                    parent[index + 1] = _Shuffle(first, second.upscale_factor)  # type: ignore[index]
    return network


def _last_bias(block: nn.Module | None) -> Tensor | None:
    """Return the bias of the convolution whose outputs the block returns, in some order, or None."""
    while type(block) is nn.Sequential and len(block) > 0:
        block = block[-2] if isinstance(block[-1], (_Shuffle, nn.PixelShuffle)) and len(block) > 1 else block[-1]
    return block.bias if type(block) in (nn.Conv2d, nn.ConvTranspose2d) else None  # type: ignore[union-attr]


def _is_narrow_upsampling(layer: nn.Module) -> bool:
    """Return whether `_as_convolution` can replace a layer, and is faster: oneDNN is slow where few channels leave."""
    if type(layer) is not nn.ConvTranspose2d or layer.out_channels >= _NARROW:
        return False
    sizes: Any = zip(layer.kernel_size, layer.output_padding, layer.padding, strict=True)
    doubles = all(kernel + extra - 2 * pad == 2 for kernel, extra, pad in sizes)
    return doubles and (layer.stride, layer.dilation, layer.groups) == ((2, 2), (1, 1), 1)


def _as_convolution(layer: Any) -> nn.Sequential:
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
