"""The analysis and synthesis transforms as they run fastest: channels-last, in bfloat16 on devices that compute in it.

Nothing that the entropy coder needs to be exact goes through them, so their rounding costs a little quality and never a
file. The last block of the analysis runs in float32: bfloat16's 8 bits are too few for a latent about to be rounded.
The last convolution of the synthesis gives pixels less middle grey, of which bfloat16 resolves half a level of 255.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from .blocks import Shuffle, replace_blocks
from .stopwatch import Stopwatch
from .tiles import find_margin, run_in_tiles


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


def _last_bias(block: nn.Module | None) -> Tensor | None:
    """Return the bias of the convolution whose outputs the block returns, in some order, or None."""
    while type(block) is nn.Sequential and len(block) > 0:
        block = block[-2] if isinstance(block[-1], (Shuffle, nn.PixelShuffle)) and len(block) > 1 else block[-1]
    return block.bias if type(block) in (nn.Conv2d, nn.ConvTranspose2d) else None  # type: ignore[union-attr]
