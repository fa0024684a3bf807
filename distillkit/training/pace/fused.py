"""Adam in one pass over all weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def in_one_pass(parameters: Sequence[Tensor]) -> dict[str, bool]:
    """Return the options with which torch's Adam takes one pass, and on a GPU leaves nothing on the host."""
    return {"fused": is_fused(parameters), "capturable": all(each.device.type == "cuda" for each in parameters)}


def is_fused(parameters: Sequence[Tensor]) -> bool:
    """Return whether torch has one kernel for a step of Adam on these: it counts its steps where the weights are."""
    return all(each.device.type in ("cpu", "cuda") and each.is_floating_point() for each in parameters)
