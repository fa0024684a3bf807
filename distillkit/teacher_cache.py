"""A teacher's features on disk, for runs that repeat: found by the crops' own bytes, checked when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .checkpoint import write_tensors
from .errors import CheckpointError, TrainingError
from .sampled_taps import sampled, tap_and_stride

_FORMAT = "distillkit-teacher-1"
_FILE_BYTES = 256 << 20  # features are held in memory until a file is this long
_LOG = logging.getLogger("distillkit")


@final
class TeacherCache:
    """Features by batch and tap, in safetensors files of one folder.

    A batch's key is a hash of its crops' bytes, of the teacher's weights, of the module that is tapped and of the
    precision: nothing is ever stale, and any run that meets the same batch (another student, another loss, the same
    seed) finds what an earlier one stored. Several processes may use one folder.

    Args:
        folder: where the files lie.
        about: what else the features depend on: the teacher's fingerprint, precision, kind of device, torch's version.
        paths: role -> module path of the taps that are cached.
    """

    def __init__(self, folder: Path, about: Iterable[str], paths: Mapping[str, str]) -> None:
        self.folder, self.about, self.paths = folder, list(about), paths
        self._place: dict[str, Path] = {}  # of each entry that is on disk
        self._checks: dict[str, str] = {}  # of each entry: a hash of its bytes, and its order of dimensions
        self._new: dict[str, Tensor] = {}
        self._writes = True
        for path in sorted(folder.glob("*.safetensors")):
            self._index(path)

    def key(self, images: Tensor) -> str:
        """Return the key of a batch, shape (B, 3, H, W)."""
        digest = hashlib.blake2b("|".join([*self.about, str(tuple(images.shape))]).encode(), digest_size=16)
        digest.update(_bytes(images))
        return digest.hexdigest()

    def read(self, key: str, roles: Collection[str], device: torch.device) -> dict[str, Tensor] | None:
        """Return the features of a batch, to the bit as they were stored, or None unless all are there and whole."""
        found: dict[str, Tensor] = {}
        for role in roles:
            features = self._read(self._name(key, role))
            if features is None:
                return None
            found[role] = features.to(device)
        return found

    def add(self, key: str, features: Mapping[str, Tensor]) -> None:
        """Store the features of a batch; they are on disk once there are enough of them, or after `flush`."""
        for role, tensor in features.items():
            name = self._name(key, role)
            if self._writes and name not in self._place:
                # Reductions round by the order of dimensions in memory, and attention leaves channels last.
                order = sorted(range(tensor.ndim), key=lambda dim: -tensor.stride(dim))
                self._new[name] = tensor.detach().cpu().permute(order).contiguous()
                self._checks[name] = f"{_digest(self._new[name])} {''.join(map(str, order))}"
        if sum(tensor.nbytes for tensor in self._new.values()) > _FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added. A disk that is full costs the cache, not the run."""
        if not self._new:
            return
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            write_tensors(path, self._new, {"format": _FORMAT, **{name: self._checks[name] for name in self._new}})
        except CheckpointError as error:
            self._writes = False
            _LOG.warning("teacher cache: %s The run goes on without storing more.", error)
        else:
            self._place |= dict.fromkeys(self._new, path)
        self._new = {}

    def check_room(self, num_bytes: int) -> str:
        """Return how much the cache will take, in words.

        Raises:
            TrainingError: there is not so much room on the disk.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise TrainingError(
                f"teacher_cache.folder {self.folder}: cannot be written: {error.strerror}; choose another one."
            ) from None
        there = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
        if num_bytes > free + there:
            raise TrainingError(
                f"teacher_cache.folder {self.folder}: the features of this run would take {num_bytes / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB are free. Set the widest taps to 'live' in teacher_cache.taps."
            )
        return f"teacher cache: {num_bytes / 2**30:.2f} GiB when complete, {there / 2**30:.2f} GiB are there"

    def _name(self, key: str, role: str) -> str:
        tap, stride = tap_and_stride(role)
        return f"{key}|{sampled(self.paths[tap], stride)}"

    def _read(self, name: str) -> Tensor | None:
        path = self._place.get(name)
        if name not in self._new and path is None:
            return None
        digest, order = self._checks[name].split()
        back = [order.index(str(dim)) for dim in range(len(order))]
        if path is None:
            return self._new[name].permute(back)
        try:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name)
            if _digest(tensor) == digest:
                return tensor.clone().permute(back)  # cloned into memory of torch's own alignment
            problem = "its checksum does not match"
        except (OSError, SafetensorError) as error:
            problem = str(error)
        _LOG.warning("teacher cache: %s was damaged (%s) and is removed; the teacher runs again.", path, problem)
        with contextlib.suppress(OSError):
            path.unlink()
        self._place = {other: place for other, place in self._place.items() if place != path}
        return None

    def _index(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
        except (OSError, SafetensorError) as error:
            _LOG.warning("teacher cache: %s is damaged (%s); remove that file.", path, error)
            return
        if metadata.pop("format", None) == _FORMAT:
            metadata.pop("sha256", None)
            self._place |= dict.fromkeys(metadata, path)
            self._checks |= metadata


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _digest(tensor: Tensor) -> str:
    digest = hashlib.blake2b(f"{tensor.dtype}|{tuple(tensor.shape)}|".encode(), digest_size=16)
    digest.update(_bytes(tensor))
    return digest.hexdigest()
