"""How large a codec is, and how much it computes."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .adapters import CodecAdapter


def num_parameters(module: nn.Module) -> int:
    """Return the number of parameters, trainable or not; buffers are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def parameters_by_part(module: nn.Module) -> dict[str, int]:
    """Return the number of parameters of `analysis` (under `g_a`), `synthesis` (under `g_s`) and `entropy` (the rest).

    The names are CompressAI's; a codec that has other ones counts as `entropy` altogether.
    """
    parts = {"analysis": 0, "synthesis": 0, "entropy": 0}
    names = {"g_a": "analysis", "g_s": "synthesis"}
    for name, parameter in module.named_parameters():
        parts[names.get(name.partition(".")[0], "entropy")] += parameter.numel()
    return parts


@torch.no_grad()
def kmac_per_pixel(adapter: CodecAdapter, size: int = 256) -> float:
    """Return thousands of multiply-accumulates for each pixel of the input, analysis to synthesis.

    Counted by `torch.utils.flop_counter.FlopCounterMode` on one forward pass, two operations to a multiply-accumulate:
    convolutions, matrix products and attention count; elementwise work and entropy coding do not. Leaves the module
    in eval mode.

    Args:
        adapter: the codec.
        size: side of the square input in pixels; rounded up to a multiple of the codec's stride.
    """
    adapter.module.eval()
    side = -(-size // adapter.stride) * adapter.stride
    device = next(adapter.module.parameters()).device
    learnt = [parameter for parameter in adapter.module.parameters() if parameter.requires_grad]
    try:
        # The counter hooks on to inputs with gradients; a view of a parameter that is made without one has no place f
        adapter.module.requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            adapter.forward(torch.zeros(1, adapter.samples.channels, side, side, device=device))
    finally:
        for parameter in learnt:
            parameter.requires_grad_()
    return counter.get_total_flops() / 2 / side**2 / 1000
