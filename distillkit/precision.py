"""Where bfloat16 is worth having."""

from __future__ import annotations

import torch


def bf16_is_fast(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 itself.

    A CPU that does not emulates it: a convolution that takes float32 a second took bfloat16 up to 100 seconds on an AMD
    EPYC with AVX2 (torch 2.14).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        can = torch.cpu.get_capabilities()
        return any(can.get(feature, False) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
    # Older versions of torch
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def computes_in_bf16(precision: str, device: torch.device, notes: list[str]) -> bool:
    """Return what a recipe's `precision` means on a device; a choice that is slow there is noted."""
    fast = bf16_is_fast(device)
    if precision == "bf16" and not fast:
        notes.append("precision bf16: this device only emulates it, and is many times faster in fp32 or auto")
    return precision == "bf16" or (precision == "auto" and fast)
