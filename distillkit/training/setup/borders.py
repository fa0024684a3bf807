"""Convolutions that a run's crops would never show the inside of a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...model.adapters import CodecAdapter
from ...model.conditioned import MIDDLE, ConditionedAdapter, FixedQuality


@torch.no_grad()
def border_notes(codec: CodecAdapter, crop: int) -> list[str]:
    """Return a note if convolutions with zeros around their input have no position that is not at its border.

    Args:
        codec: that is trained.
        crop: side of the run's largest crops, in pixels.
    """
    found: list[str] = []

    def look(name: str, layer: Any) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if args and min(args[0].shape[-2:]) <= 2 and name not in found:
                found.append(name)

        return layer.register_forward_pre_hook(hook)

    handles = [look(name, layer) for name, layer in codec.module.named_modules() if _puts_zeros(layer)]
    whole = FixedQuality(codec, MIDDLE) if isinstance(codec, ConditionedAdapter) else codec
    modes = {module: module.training for module in codec.module.modules()}
    codec.module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            whole.forward(torch.full((1, codec.samples.channels, crop, crop), 0.5))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    if not found:
        return []
    names = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
    return [
        f"crops of {crop} pixels are at most 2x2 positions to convolutions with zeros at the border ({names}), and "
        "never show them the inside of a picture. Whole pictures may need far more bits than crops: take crops twice "
        "as large, in the last phase at least; see docs/recipes.md, 'How large a crop'."
    ]


def _puts_zeros(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution over several positions with zeros around its input."""
    if isinstance(layer, nn.ConvTranspose2d):
        return max(layer.kernel_size) > max(layer.stride)
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
        return False
    padded = layer.padding == "same" if isinstance(layer.padding, str) else any(layer.padding)
    return padded and max(layer.kernel_size) > 1
