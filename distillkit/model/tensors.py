"""Tensors and text in one safetensors file, written atomically, verified when read. No pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and text as one safetensors file that is either complete on disk or absent.

    A checksum over tensors and text goes with it, which `read_tensors` verifies.

    Raises:
        CheckpointError: the file cannot be written (full disk, read-only folder).
    """
    ready, places = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        shares = tensor.untyped_storage().nbytes() != tensor.nbytes or tensor.data_ptr() in places
        ready[name] = tensor.clone() if shares else tensor
        places.add(tensor.data_ptr())
    partial = path.with_name(path.name[:60] + ".partial")  # a name may be as long as names may be
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode  # of a new file; safetensors lets its owner alone read what it writes
        save_file(ready, partial, {**metadata, "sha256": _checksum(ready, metadata)})
        partial.chmod(mode)
        with partial.open("r+b") as file:
            _put_in_order(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        number = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors gives it
        problem = os.strerror(int(number[1])) if number else getattr(error, "strerror", error)
        raise CheckpointError(f"{path}: cannot be written: {problem}. What was there before is kept.") from None


def _put_in_order(file: BinaryIO) -> None:
    """Put the header of a safetensors file in a fixed order: equal contents give equal bytes."""
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    about = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    file.seek(8)
    file.write(text.ljust(size))  # the same entries, so of the same length


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


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
