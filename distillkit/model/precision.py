"""The arithmetic of a run: float32, or bfloat16 or float16 where that is safe."""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any, final

import torch


def bf16_is_fast(device: torch.device) -> bool:
    """Return whether a device computes faster in bfloat16 than in float32.

    A CPU without the instructions emulates it: a convolution that takes float32 a second took bfloat16 up to 100
    seconds on an AMD EPYC with AVX2 (torch 2.14). Nor is it faster on every CPU that has them: an Intel Xeon with
    AVX-512 and no AMX took 1.8 times as long as in float32. So where there are instructions, a convolution is timed.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bf16() and bf16_time(device) < 1


def _cpu_has_bf16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        can = torch.cpu.get_capabilities()
        return any(can.get(feature, False) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
    # Older versions of torch
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


@functools.cache
def bf16_time(device: torch.device) -> float:
    """Return how many times as long as in float32 a convolution takes in bfloat16, measured once in a process."""
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        operands = {}
        for dtype in seconds:  # ones: a caller's random numbers stay as they are
            shapes = ((1, 64, 64, 64), (64, 64, 3, 3))
            operands[dtype] = [torch.ones(shape, dtype=dtype, device=device) for shape in shapes]
            operands[dtype][0] = operands[dtype][0].contiguous(memory_format=torch.channels_last)
        for _ in range(6):  # in turns, so that other work on the machine slows both
            for dtype, (features, weight) in operands.items():
                start = perf_counter()
                torch.nn.functional.conv2d(features, weight, padding=1).sum().item()  # waits for the device
                seconds[dtype] = min(seconds[dtype], perf_counter() - start)
    return seconds[torch.bfloat16] / seconds[torch.float32]


@final
class Precision:
    """What a recipe's `precision` means on a device.

    Attributes:
        name: `fp32`, `bf16` or `fp16`.
        scaler: keeps small gradients of float16 from becoming 0, and leaves out a step whose gradients are not finite;
            does nothing for the other two.
    """

    def __init__(self, choice: str, device: torch.device, notes: list[str]) -> None:
        """Choose; what is slow on this device is noted."""
        fast = bf16_is_fast(device)
        self.name = choice if choice != "auto" else "bf16" if fast else "fp32"
        if self.name == "bf16" and not fast:
            notes.append("precision bf16: this device is faster in fp32, which auto takes here")
        if self.name == "fp16" and device.type == "cpu":
            notes.append("precision fp16: a CPU is faster in auto")
        self._device = device.type
        self._dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16")

    def autocast(self, *, unscaled: bool = False) -> AbstractContextManager[Any]:
        """Return the context of a forward pass; not of float16 where gradients stay `unscaled`: they would vanish."""
        on = self.name == "bf16" or (self.name == "fp16" and not unscaled)
        # Torch empties its cache of cast weights where the outermost context ends, which may be one of the caller's:
        # every step would see the weights of the first one.
        return torch.autocast(self._device, self._dtype, enabled=on, cache_enabled=False)

    def gave_up(self) -> bool:
        """Return whether float16 found no factor at which the gradients are finite; waits for the device."""
        return self.scaler.is_enabled() and self.scaler.get_scale() < 2.0**-10
