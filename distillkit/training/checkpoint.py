"""Checkpoints: any state dict as one safetensors file, written atomically, verified when read. No pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import CheckpointError

_NAME = re.compile(r"step-(\d{8,})\.safetensors")
KEEP = 2  #: checkpoints of a run that stay on disk; the older one is the reserve if the newer is damaged


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and text as one safetensors file that is either complete on disk or not there at all.

    A checksum over tensors and text goes with it, which `read_tensors` verifies.

    Raises:
        CheckpointError: the file cannot be written (full disk, read-only folder).
    """
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = save(ready, {**metadata, "sha256": _checksum(ready, metadata)})
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for part in _in_order(data):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}. What was there before is kept.") from None


def _in_order(data: bytes) -> tuple[bytes, memoryview]:
    """Return a safetensors file with its header in a fixed order: equal contents give equal bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    about = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(data)[end:]


def _sync_folder(folder: Path) -> None:
    """Make a renamed file outlast a power cut; where folders cannot be opened (Windows), the system sees to it."""
    with contextlib.suppress(PermissionError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, truncated or altered.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; is it whole, and a safetensors file?") from None
    expected = metadata.pop("sha256", None)
    if expected != _checksum(tensors, metadata):
        raise CheckpointError(f"{path}: damaged: its checksum does not match its content; copy it again.")
    return tensors, metadata


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps (tensors, numbers, text in any nesting), then drop all but the newest two.

    Raises:
        CheckpointError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    structure = pack(state, tensors)
    path = folder / f"step-{step:08d}.safetensors"
    write_tensors(path, tensors, {"format": "distillkit-checkpoint-1", "state": json.dumps(structure)})
    for old in list_checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


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
    return unpack(json.loads(metadata["state"]), tensors)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first; files of other names, such as `step-good`, are the user's."""
    steps = {path: int(match[1]) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))}
    return sorted(steps, key=lambda path: steps[path])


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
