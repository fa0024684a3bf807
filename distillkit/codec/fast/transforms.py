"""The analysis and synthesis transforms as they run fastest: channels-last, in bfloat16 where that is faster.

Nothing that the entropy coder needs to be exact goes through them, so their rounding costs a little quality and never a
file. The last block of the analysis runs in float32: bfloat16's 8 bits are too few for a latent about to be rounded.
The last convolution of the synthesis gives pixels minus middle grey, which bfloat16 resolves to half a level of 255.

A network that makes float32 tensors as it runs (the mask of a shifted window) cannot have its weights in bfloat16. It
runs under autocast instead, as it trained.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from ..stopwatch import Stopwatch
from .blocks import Shuffle, replace_blocks
from .tiles import find_margin, run_in_tiles


@final
class Transform(nn.Module):
    """A transform that takes and returns tensors of any floating type and memory format.

    Args:
        network: the transform; it is changed, so pass a copy.
        dtype: of its computation; where that is lower than float32, the last child of a sequence is an exception.
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
        self._shape: tuple[int, ...] = ()  # of the last features
        self._margins: dict[tuple[int, int], int | None] = {}
        self.strides: tuple[int, int] | None = None  # of a picture that is cut into tiles: rows, columns
        self.tile_strides = 0
        network = replace_blocks(network)
        self._dtype, self._out_dtype = dtype, out_dtype
        self._under_autocast = False
        is_sequence = isinstance(network, nn.Sequential) and type(network).forward is nn.Sequential.forward
        last = network[-1] if is_sequence and len(network) > 1 else None  # type: ignore[index,arg-type]
        bias = _last_bias(last) if dtype != torch.float32 and centre is not None else None
        if bias is not None and centre is not None:
            self._centre = centre
            bias.data -= centre
        self.network = network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._exact_last = dtype != torch.float32 and bias is None and last is not None
        if self._exact_last and last is not None:
            last.float().register_forward_pre_hook(lambda _, args: tuple(a.float() for a in args))

    def forward(self, features: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the network returns for `features`, shape (B, C, H, W); in tiles if `strides` are set.

        Other arguments are passed on; with them, nothing is cut.
        """
        with self._stopwatch.time("transform"):
            self._shape = tuple(features.shape)
            if self.strides is None or args or kwargs:
                return self._run(features, *args, **kwargs)
            align = features.shape[2] // self.strides[0]
            if align < 1 or features.shape[2:] != (align * self.strides[0], align * self.strides[1]):
                return self._run(features)  # its input does not grow with the picture
            margin = self._margin(features.shape[1], align)
            if margin is None:
                return self._run(features)
            return run_in_tiles(self._run, features, align * self.tile_strides, margin)

    def can_be_cut(self, rows: int) -> bool:
        """Return whether large pictures are cut for it, once it has run on one of `rows` strides."""
        if len(self._shape) != 4 or self._shape[2] < rows:
            return False
        return self._margin(self._shape[1], self._shape[2] // rows) is not None

    def _margin(self, channels: int, align: int) -> int | None:
        key = channels, align
        if key not in self._margins:
            self._margins[key] = find_margin(self.network, *key)
        return self._margins[key]

    def _run(self, features: Tensor, *args: Any, **kwargs: Any) -> Any:
        try:
            out = self._compute(features, args, kwargs)
        except RuntimeError:
            if self._dtype == torch.float32 or self._under_autocast:
                raise
            self._under_autocast = True
            self.network.float()  # autocast rounds them to bfloat16 again: the same weights
            out = self._compute(features, args, kwargs)
        if not isinstance(out, Tensor):
            return tuple(to_dtype(self._out_dtype, value) for value in out) if isinstance(out, (tuple, list)) else out
        out = out.to(self._out_dtype)
        return out + self._centre if self._centre else out

    def _compute(self, features: Tensor, args: Any, kwargs: Any) -> Any:
        dtype = torch.float32 if self._under_autocast else self._dtype
        args = tuple(to_dtype(dtype, value) for value in args)
        kwargs = {name: to_dtype(dtype, value) for name, value in kwargs.items()}
        if features.ndim == 4:
            features = features.to(dtype, memory_format=torch.channels_last)
        last, network = None, self.network
        if self._under_autocast and self._exact_last:
            network, last = self.network[:-1], self.network[-1]  # type: ignore[index]
        with torch.autocast(features.device.type, self._dtype, enabled=self._under_autocast):
            out = network(to_dtype(dtype, features), *args, **kwargs)
        return out if last is None else last(out.float())


def to_dtype(dtype: torch.dtype, value: Any) -> Any:
    """Return `value` in that type if it is a tensor of floating-point numbers, else as it is."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _last_bias(block: nn.Module | None) -> Tensor | None:
    """Return the bias of the convolution whose outputs the block returns, in some order, or None."""
    while type(block) is nn.Sequential and len(block) > 0:
        block = block[-2] if isinstance(block[-1], (Shuffle, nn.PixelShuffle)) and len(block) > 1 else block[-1]
    return block.bias if type(block) in (nn.Conv2d, nn.ConvTranspose2d) else None  # type: ignore[union-attr]
