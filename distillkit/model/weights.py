"""Weights that distillkit did not write: a state dict in a file, read without running code in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import PairError

_KEYS = ("state_dict", "model_state_dict", "network", "model")  # under which checkpoints have it


def is_foreign(path: Path) -> bool:
    """Return whether a file holds weights that distillkit did not write; False where there is none."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return not str((file.metadata() or {}).get("format", "")).startswith("distillkit-model-")
    except (SafetensorError, OSError):
        return path.suffix != ".safetensors"


def read_weights(path: Path, where: str) -> dict[str, Tensor]:
    """Return the state dict in a file: safetensors, or what `torch.save` wrote; no code in it is run.

    It may be under `state_dict`, `model_state_dict`, `network` or `model`, and names may begin with `module.`, as data
    parallelism has them.

    Args:
        path: the file.
        where: names it in errors.

    Raises:
        PairError: it cannot be read, or holds no state dict.
    """
    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise PairError(f"{where}: expected a file, got a folder or device; check the path.")
    try:
        is_safe = path.suffix == ".safetensors"
        content: Any = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PairError(f"{where}: no such file; check the path.") from None
    except pickle.UnpicklingError:
        raise PairError(
            f"{where}: it holds more than weights, and reading that could run code. Load it where you trust it, and "
            "save its state dict with safetensors."
        ) from None
    except Exception as error:  # unpickling rubbish raises anything
        raise PairError(
            f"{where}: expected safetensors (named so), or a file of torch.save, got something else or a damaged one "
            f"({type(error).__name__}); save or copy it again."
        ) from None
    for key in _KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise PairError(
            f"{where}: expected a state dict, or a checkpoint with one under 'state_dict', got neither; save it so."
        )
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a module with the state dict in a file.

    Raises:
        PairError: the file cannot be read, or holds other weights.
    """
    where = f"weights {path}"
    state = read_weights(path, where)
    fit_tables(module, state)
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise PairError(
            f"{where}: expected those of {type(module).__name__} as the pair builds it, got others "
            f"({state_difference(module, state)}); name another file, or options of the pair that fit."
        ) from None


def fit_tables(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give buffers the sizes that they have in `tensors`: a fresh model's tables are empty."""
    for prefix, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            saved = tensors.get(f"{prefix}.{name}" if prefix else name)
            if saved is not None and saved.shape != buffer.shape:
                setattr(part, name, torch.empty(saved.shape, dtype=buffer.dtype))


def state_difference(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Return how weights differ from those that a module has: how many, and the first one's name."""
    own = dict(module.named_parameters())
    kinds = {
        "missing": [name for name in own if name not in state],
        "unknown": [name for name in state if name not in module.state_dict()],
        "of another shape": [name for name in own if name in state and state[name].shape != own[name].shape],
    }
    told = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds.items() if names]
    return "; ".join(told) or "the entropy coder's tables do not fit"
