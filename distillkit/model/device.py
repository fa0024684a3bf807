"""The device that a name stands for."""

from __future__ import annotations

import re
from typing import Any, cast

import torch

from ..errors import DistillkitError

_NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def find_device(choice: str, where: str, error: type[DistillkitError] = DistillkitError) -> torch.device:
    """Return the device of a name.

    Args:
        choice: `cpu`, `cuda`, one GPU of several (`cuda:1`), `mps`, or `auto`: a GPU where there is one.
        where: names the option or key in errors.
        error: what to raise.

    Raises:
        DistillkitError: there is no such name, or this machine has no such device.
    """
    if not _NAMES.fullmatch(choice):
        raise error(f"{where}: expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps', got '{choice}'; correct it.")
    here = accelerator()
    device = torch.device(here if choice == "auto" else choice)
    if device.type == "cpu":
        return device
    index = cast(Any, device.index)  # None if the name has no number
    count = torch.accelerator.device_count() if here == device.type else 0
    if index is None and count:
        index = torch.accelerator.current_device_index()
    wanted = device.type if index is None else f"{device.type}:{index}"
    if (index or 0) >= count:
        devices = f"{count} x '{device.type}'" if count else f"only '{here}'"
        raise error(
            f"{where}: expected a device of this machine, which has {devices}, got '{wanted}'; name another device."
        )
    return torch.device(wanted)


def accelerator() -> str:
    """Return the kind of this machine's accelerator: `cuda`, `mps`, or `cpu` where there is none."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found is not None else "cpu"


def device_name(device: torch.device) -> str:
    """Return what the device is called: a GPU by its model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
