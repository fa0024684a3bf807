"""Files that hold a part of a model, the rest of which is a model that ships: a light decoder's is its synthesis alone.

Parts are the direct children of a codec's module, such as `g_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .tensors import read_tensors
from .zoo import find


def part_of(name: str) -> str:
    """Return the part that a tensor belongs to."""
    return name.partition(".")[0]


def without(state: Mapping[str, Tensor], rest: str) -> dict[str, Tensor]:
    """Return the parts of a model's state in which it differs from a model that ships.

    Args:
        state: of the model.
        rest: `zoo:NAME` of the other.

    Raises:
        CheckpointError: there is no such model.
    """
    other, _ = read_tensors(find(rest))
    same = {name for name in state.keys() & other.keys() if _equal(state[name], other[name])}
    parts = {part_of(name) for name in (state.keys() | other.keys()) - same}
    return {name: tensor for name, tensor in state.items() if part_of(name) in parts}


def completed(tensors: Mapping[str, Tensor], rest: str, path: Path) -> dict[str, Tensor]:
    """Return a model's state, from the parts that `without` kept and the model that ships.

    Args:
        tensors: of the model's file.
        rest: `zoo:NAME` of the other, as the file has it.
        path: of the file.

    Raises:
        CheckpointError: there is no such model.
    """
    try:
        other = find(rest)
    except CheckpointError as error:
        raise CheckpointError(
            f"model {path}: expected the name of a model that ships under `rest` in its metadata, for the parts that "
            f"the file leaves out, got another ({error}); read it with the distillkit that wrote it, or write it again."
        ) from None
    parts = {part_of(name) for name in tensors}
    others = read_tensors(other)[0].items()
    return {name: tensor for name, tensor in others if part_of(name) not in parts} | dict(tensors)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.double(), other.double())
