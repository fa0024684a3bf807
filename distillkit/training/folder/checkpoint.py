"""Checkpoints: any state dict as one safetensors file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ...model.tensors import read_tensors, write_tensors

_NAME = re.compile(r"step-(\d{8,})\.safetensors")
KEEP = 2  #: checkpoints of a run that stay on disk; the older one is the reserve if the newer is damaged


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps (tensors, numbers, text in any nesting), then drop all but the newest two.

    Raises:
        CheckpointError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    structure = pack(state, tensors)
    path = folder / checkpoint_name(step)
    write_tensors(path, tensors, {"format": "distillkit-checkpoint-1", "state": json.dumps(structure)})
    own = [each for each in list_checkpoints(folder) if _step(each) <= step]  # a later one is a user's file
    for old in own[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint after `step` steps."""
    return f"step-{step:08d}.safetensors"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint.

    Raises:
        CheckpointError: the file is damaged or is not a checkpoint.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != "distillkit-checkpoint-1":
        raise CheckpointError(
            f"{path}: expected a checkpoint, got format {metadata.get('format')!r}; name another file."
        )
    try:
        return dict(unpack(json.loads(metadata["state"]), tensors))
    except Exception as error:  # of a file by another program, whose checksum is correct
        raise CheckpointError(f"{path}: expected the state of a run, got {error!r}; remove it.") from None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first; files of other names, such as `step-good`, are the user's."""
    return sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by references and dicts by lists of pairs, since JSON turns every key into text."""
    if isinstance(value, Tensor):
        # Matrix products round by the layout of their factors, and SOAP's bases are column-major: keep the order of
        # dimensions in memory, or a resumed run is not bit for bit the same.
        name, order = str(len(tensors)), sorted(range(value.ndim), key=lambda dim: -value.stride(dim))
        tensors[name] = value.permute(order)
        return {"tensor": [name, order]}
    if isinstance(value, Mapping):
        return {"dict": [[key, pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [pack(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put the tensors back where `pack` took them."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "tensor":
            name, order = content
            # Cloned into memory of torch's own alignment, by which matrix products round, too.
            return tensors[name].permute([order.index(dim) for dim in range(len(order))]).clone()
        if kind == "dict":
            return {key: unpack(item, tensors) for key, item in content}
        return tuple(unpack(item, tensors) for item in content)
    return value
