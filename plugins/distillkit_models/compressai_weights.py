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


def download(architecture: str, quality: int) -> nn.Module:
    """Return a codec with CompressAI's weights (MSE), from torch's cache or from the network; no code in them is run.

    Raises:
        PairError: they cannot be had.
    """
    from compressai.zoo.image import model_urls
    from torch.hub import load_state_dict_from_url

    where = f"models.compressai: {architecture}, quality {quality}"
    url = model_urls[architecture]["mse"][quality]
    try:
        state = load_state_dict_from_url(url, map_location="cpu", progress=False, weights_only=True)
    except Exception as error:  # of the network, of the disk, or of what was found in the cache
        raise distillkit.PairError(
            f"{where}: its weights could not be downloaded ({error}). Where there is no network, fetch {url} elsewhere "
            "and name the file as teacher.weights; if torch's cache holds a damaged one, remove that."
        ) from None
    return _with_state(Architecture.model_validate({"architecture": architecture}), state, where)


def load(codec: Architecture, path: Path) -> nn.Module:
    """Return a codec with the weights in a file, of the sizes that the file has.

    Raises:
        PairError: the file cannot be read, holds no such codec, or one of other sizes than those given.
    """
    where = f"models.compressai: weights {path}"
    return _with_state(codec, _read(path, where), where)


def sizes(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the sizes (N, M, groups) of the codec that has these weights, or None if it is of another architecture."""
    first = "g_a.0.conv1.weight" if architecture.startswith("cheng2020") else "g_a.0.weight"
    if first not in state:
        return None
    found: dict[str, Any] = {"N": state[first].shape[0]}
    if architecture.startswith("elic2022"):
        groups = {
            int(match[1]): tensor.shape[1]
            for name, tensor in state.items()
            if (match := re.search(r"\.y(\d+)\.context_prediction\.weight$", name))
        }
        found["groups"] = tuple(groups[number] for number in sorted(groups))
        found["M"] = sum(found["groups"])
        return found if groups else None
    if not architecture.startswith("cheng2020"):
        if "g_a.6.weight" not in state:
            return None
        found["M"] = state["g_a.6.weight"].shape[0]
    if architecture in ("bmshj2018-hyperprior-vbr", "mbt2018-mean-vbr"):
        found["vr_entbttlnck"] = "gayn2zqstep.0.weight" in state
    return found


def _with_state(codec: Architecture, state: Mapping[str, Tensor], where: str) -> nn.Module:
    from compressai.zoo.pretrained import load_pretrained

    state = load_pretrained(dict(state))
    other = f"{where}: expected the weights of {codec.architecture}, got others"
    found = sizes(codec.architecture, state)
    if found is None:
        raise distillkit.PairError(f"{other}; name their architecture.")
    for name, given in (("N", codec.N), ("M", codec.M), ("groups", codec.groups)):
        if given is not None and name in found and given != found[name]:
            raise distillkit.PairError(f"{where}: expected {name} = {given}, got {found[name]}; correct the recipe.")
    net = build(codec.model_copy(update=found))
    try:
        net.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError):
        raise distillkit.PairError(f"{other} ({_difference(net, state)}); name their architecture.") from None
    return net


def _difference(net: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Return how weights differ from those that a codec has: how many, and the first one's name."""
    own = dict(net.named_parameters())
    kinds = {
        "missing": [name for name in own if name not in state],
        "unknown": [name for name in state if name not in net.state_dict()],
        "of another shape": [name for name in own if name in state and state[name].shape != own[name].shape],
    }
    told = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds.items() if names]
    return "; ".join(told) or "the entropy coder's tables do not fit"


def _read(path: Path, where: str) -> dict[str, Tensor]:
    import torch
    from safetensors.torch import load_file

    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise distillkit.PairError(f"{where}: expected a file, got a folder or device; check the path.")
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
    except Exception as error:  # unpickling rubbish raises anything
        raise distillkit.PairError(
            f"{where}: expected safetensors (named so), or a file of torch.save, got something else or a damaged one "
            f"({type(error).__name__}); save or copy it again."
        ) from None
    for key in ("state_dict", "model_state_dict", "network", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise distillkit.PairError(
            f"{where}: expected a state dict, or a checkpoint with one under 'state_dict', got neither; save it so."
        )
    return dict(content)
