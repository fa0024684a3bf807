"""Weights of CompressAI's codecs: its own, and those in files; sizes inferred where they are not given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distillkit

from .compressai_registry import arguments_of, find
from .compressai_zoo import KNOWN, Architecture, build

if TYPE_CHECKING:
    from torch import Tensor, nn


def download(architecture: str, quality: int) -> nn.Module:
    """Return a codec with CompressAI's weights (MSE), from torch's cache or from the network; no code in them is run.

    Raises:
        PairError: they are not available.
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
    return _with_state(codec, distillkit.read_weights(path, where), where)


def sizes(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the sizes (N, M, groups) of the codec that has these weights, or None if it is of another architecture.

    For architectures that are not known here, `from_state_dict` of their class finds them.
    """
    if architecture not in KNOWN:
        return _sizes_by_class(architecture, state)
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


def _sizes_by_class(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    model = find(architecture)
    if not hasattr(model, "from_state_dict"):
        return {}  # sizes are those that the recipe gives
    try:
        given = arguments_of(model, state)
    except Exception:  # of weights of something else
        return None
    own = {name: value for name, value in given.items() if name in ("N", "M")}
    others = {name: value for name, value in given.items() if name not in own}
    checked = Architecture.model_validate({"architecture": architecture, "arguments": others})  # numbers alone
    return own | {"arguments": checked.arguments}


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
        told = distillkit.state_difference(net, state)
        raise distillkit.PairError(f"{other} ({told}); name their architecture.") from None
    return net
