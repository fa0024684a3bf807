"""Weights of CompressAI's codecs: its own, and those in files; sizes inferred where they are not given."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distillkit

from .compressai_zoo import Architecture, build

if TYPE_CHECKING:
    from torch import Tensor, nn


def download(architecture: str, quality: int | None) -> nn.Module:
    """Return a codec with CompressAI's weights (MSE), from its cache or from the network.

    Raises:
        PairError: they cannot be had.
    """
    from compressai.zoo import image_models

    try:
        return image_models[architecture](quality=quality, metric="mse", pretrained=True, progress=False)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise distillkit.PairError(
            f"models.compressai: {architecture}, quality {quality}: its weights could not be downloaded ({error}). "
            "Where there is no network, fetch the file elsewhere and name it as teacher.weights."
        ) from None


def load(codec: Architecture, path: Path) -> nn.Module:
    """Return a codec with the weights in a file, of the sizes that the file has.

    Raises:
        PairError: the file cannot be read, holds no such codec, or one of other sizes than those given.
    """
    from compressai.zoo.pretrained import load_pretrained

    where = f"models.compressai: weights {path}"
    state = load_pretrained(_read(path, where))
    sizes = _sizes(codec.architecture, state, where)
    for name, given in (("N", codec.N), ("M", codec.M), ("groups", codec.groups)):
        if given is not None and name in sizes and given != sizes[name]:
            raise distillkit.PairError(f"{where}: expected {name} = {given}, got {sizes[name]}; correct the recipe.")
    net = build(codec.model_copy(update={"quality": None, **sizes}))
    try:
        net.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError) as error:
        first = " ".join(str(error).split())[:300]
        raise distillkit.PairError(
            f"{where}: expected the weights of {codec.architecture}, got others: {first} Is it another architecture?"
        ) from None
    return net


def _read(path: Path, where: str) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise distillkit.PairError(f"{where}: no such file; check the path.") from None
    except pickle.UnpicklingError:
        raise distillkit.PairError(
            f"{where}: it holds more than weights, and reading that could run code. Load it where you trust it, and "
            "save its state dict with safetensors."
        ) from None
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise distillkit.PairError(f"{where}: cannot be read: {error}.") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise distillkit.PairError(
            f"{where}: expected a state dict, or a checkpoint with one under 'state_dict', got neither; save it so."
        )
    return dict(content)


def _sizes(architecture: str, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    first = next((name for name in ("g_a.0.weight", "g_a.0.conv1.weight") if name in state), None)
    if first is None:
        raise distillkit.PairError(
            f"{where}: expected the weights of {architecture}, got none named g_a.0; Is it another architecture?"
        )
    sizes: dict[str, Any] = {"N": state[first].shape[0]}
    if architecture.startswith("elic2022"):
        groups = {
            int(found[1]): tensor.shape[1]
            for name, tensor in state.items()
            if (found := re.search(r"\.y(\d+)\.context_prediction\.weight$", name))
        }
        sizes["groups"] = tuple(groups[number] for number in sorted(groups))
        sizes["M"] = sum(sizes["groups"])
    elif not architecture.startswith("cheng2020") and "g_a.6.weight" in state:
        sizes["M"] = state["g_a.6.weight"].shape[0]
    return sizes
