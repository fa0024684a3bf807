"""The networks and tables of a codec, one by one: what another runtime needs to code pictures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from ..errors import PairError
from ..model.adapters import CodecAdapter
from ..model.conditioned import ConditionedAdapter
from ..model.gain_units import GainUnits
from .networks import Network

Flow = Literal["factorized", "scale", "mean-scale", "checkerboard"]

#: The networks by flow, in the order in which encoding runs them.
NETWORKS: dict[str, tuple[str, ...]] = {
    "factorized": ("g_a", "g_s"),
    "scale": ("g_a", "h_a", "h_s", "g_s"),
    "mean-scale": ("g_a", "h_a", "h_s", "g_s"),
    "checkerboard": ("g_a", "h_a", "h_s", "context_prediction", "entropy_parameters", "g_s"),
}

#: What chooses the entropy coder's tables, and is exported in float64.
EXACT = ("h_s", "context_prediction", "entropy_parameters")


@final
@dataclass(frozen=True)
class CodecParts:
    """The parts of a codec.

    Attributes:
        flow: how the parts work together: `factorized` (Balle et al., 2017), `scale` (a hyperprior of scales; Balle et
            al., 2018), `mean-scale` (Minnen et al., 2018) or `checkerboard` (a mean-scale hyperprior with a context in
            two passes; He et al., 2021).
        networks: from (1, C, H, W) to (1, C', H', W'), float64 for those in `EXACT` and float32 for the others; names
            as in `NETWORKS`.
        inputs: name -> channels and the multiple of which height and width must be.
        tables: name -> array: the entropy coder's tables, see `entropy_tables`; and of a codec of many rates its gains,
            see `gain_tables`, which the networks leave out.
        entropy_models: `y` and, where there is one, `z` -> the entropy model's name in the codec.
        context_channels: that `context_prediction` gives, or 0.
        anchor_parity: `even` or `odd`: the positions that a checkerboard codes first.
        stride: pictures are padded to multiples of this many pixels.
    """

    flow: Flow
    networks: list[Network]
    inputs: Mapping[str, tuple[int, int]]
    tables: Mapping[str, Tensor]
    entropy_models: Mapping[str, str]
    context_channels: int
    anchor_parity: str
    stride: int


def take_apart(codec: CodecAdapter) -> CodecParts:
    """Return the parts of a codec whose modules are called as CompressAI's are.

    Raises:
        PairError: the codec has another structure: a serial context, channel groups, many rates without gain units, or
            other names.
    """
    gains: dict[str, Tensor] = {}
    if isinstance(units := getattr(codec.module, "gain", None), GainUnits):
        gains = gain_tables(units)
        codec = copy.deepcopy(codec)
        codec.module.gain.quality = None  # type: ignore[union-attr]
    module, name = codec.module, type(codec.module).__name__
    if isinstance(codec, ConditionedAdapter) and not gains:
        raise _unknown(name, "many rates by other means than gain units")
    found = {part: _named(module, part) for part in NETWORKS["checkerboard"]}
    names = {model: path for path, model in module.named_modules() if hasattr(model, "_quantized_cdf")}
    bottlenecks = [model for model in names if hasattr(model, "quantiles")]
    gaussians = [model for model in names if hasattr(model, "scale_table")]
    if not bottlenecks:
        raise _unknown(name, "no entropy bottleneck of CompressAI's")
    if any(len(modules) > 1 for modules in (*found.values(), bottlenecks, gaussians)) or len(bottlenecks) != 1:
        raise _unknown(name, "several entropy models or networks of one name, as channel groups have")
    networks = {part: modules[0] for part, modules in found.items() if modules}
    flow, parity = _flow(module, networks, gaussians)
    missing = [part for part in NETWORKS[flow] if part not in networks]
    if missing:
        raise _unknown(name, f"no {', '.join(missing)}")
    models = {"y": gaussians[0], "z": bottlenecks[0]} if gaussians else {"y": bottlenecks[0]}
    known = {
        id(p) for part in (*(networks[part] for part in NETWORKS[flow]), *models.values()) for p in part.parameters()
    }
    others = [path for path, parameter in module.named_parameters() if id(parameter) not in known]
    if others := [path for path in others if not (gains and path.startswith("gain."))]:
        raise _unknown(name, f"parameters beside those, {others[0]}")
    tables = gains
    for latent, model in models.items():
        tables |= entropy_tables(latent, model)
    inputs = _inputs(codec, found)
    context = inputs["entropy_parameters"][0] - _out_channels(found["h_s"][0]) if flow == "checkerboard" else 0
    own = {latent: names[model] for latent, model in models.items()}
    made = [_network(part, networks[part], *inputs[part]) for part in NETWORKS[flow]]
    return CodecParts(flow, made, inputs, tables, own, context, parity, codec.stride)


def entropy_tables(latent: str, model: Any) -> dict[str, Tensor]:
    """Return an entropy model's tables: `cdf` (one row per distribution), `cdf_length`, `offset`, and its own extra.

    The extra is `medians`, one per channel, of an entropy bottleneck; `scale_table` and `scale_bound` of a Gaussian.
    """
    tables = {"cdf": model._quantized_cdf, "cdf_length": model._cdf_length, "offset": model._offset}
    if hasattr(model, "quantiles"):
        tables["medians"] = model.quantiles[:, 0, 1]
    else:
        tables["scale_table"] = model.scale_table
        tables["scale_bound"] = model.lower_bound_scale.bound
    return {f"{latent}.{key}": tensor.detach().cpu().clone() for key, tensor in tables.items()}


def gain_tables(units: GainUnits) -> dict[str, Tensor]:
    """Return the gains of a codec of many rates: `gain.y`, `gain.y_inverse`, and the same for z if it has one.

    Each is of natural logarithms, shape (levels, channels), levels evenly spaced from quality 0 to 1.
    """
    return {f"gain.{unit}": logs.detach().cpu().clone() for unit, logs in units.named_parameters()}


def _named(module: nn.Module, part: str) -> list[nn.Module]:
    found = {id(child): child for path, child in module.named_modules() if path.rpartition(".")[2] == part}
    # CompressAI's latent codecs hold an identity under the name of an absent network.
    return [child for child in found.values() if not isinstance(child, nn.Identity)]


def _flow(module: nn.Module, networks: Mapping[str, nn.Module], gaussians: list[Any]) -> tuple[Flow, str]:
    if not gaussians:
        return "factorized", ""
    if "context_prediction" in networks:
        parities = [str(m.anchor_parity) for m in module.modules() if hasattr(m, "anchor_parity")]
        if len(parities) != 1:
            raise _unknown(type(module).__name__, "a serial context, which would take a network run for each position")
        return "checkerboard", parities[0]
    if missing := [part for part in ("h_a", "h_s") if part not in networks]:
        raise _unknown(type(module).__name__, f"a hyper-prior without {' and '.join(missing)}")
    latent, params = _out_channels(networks["g_a"]), _out_channels(networks["h_s"])
    return ("scale" if params == latent else "mean-scale"), ""


def _out_channels(network: nn.Module) -> int:
    last = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))][-1]
    return last.out_channels


def _inputs(codec: CodecAdapter, found: Mapping[str, list[nn.Module]]) -> dict[str, tuple[int, int]]:
    """Return channels and granularity of every network's input, by running one picture through the codec."""
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(part: str) -> Any:
        def remember(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            shapes.setdefault(part, tuple(args[0].shape))

        return remember

    handles = [modules[0].register_forward_pre_hook(watch(part)) for part, modules in found.items() if modules]
    try:
        with torch.no_grad():
            codec.module.eval()
            codec.forward(torch.zeros(1, codec.samples.channels, codec.stride, codec.stride))
    finally:
        for handle in handles:
            handle.remove()
    # Entropy parameters are a network of 1x1 convolutions, and are run on half of the positions.
    return {part: (shape[1], 1 if part == "entropy_parameters" else shape[2]) for part, shape in shapes.items()}


def _network(name: str, network: nn.Module, channels: int, multiple: int) -> Network:
    plain, is_exact = copy.deepcopy(_plain(network)).cpu(), name in EXACT
    # Sizes of 1 would be taken for constants.
    example = torch.rand(1, channels, 2 * multiple, 3 * multiple, dtype=torch.float64 if is_exact else torch.float32)
    sides: dict[int, tuple[int, str] | None] = {2: (multiple, "height"), 3: (multiple, "width")}
    module = plain.double() if is_exact else plain
    return Network(name, module, ["x"], ["y"], [example], [sides], is_exact)


def _plain(network: nn.Module) -> nn.Module:
    """Return a network that other runtimes can trace: a masked convolution's mask is multiplied into its weights."""
    mask = getattr(network, "mask", None)
    if not isinstance(network, nn.Conv2d) or mask is None:
        return network.eval()
    plain = nn.Conv2d(
        network.in_channels,
        network.out_channels,
        network.kernel_size,  # type: ignore[arg-type]
        padding=network.padding,  # type: ignore[arg-type]
        bias=network.bias is not None,
    )
    with torch.no_grad():
        plain.weight.copy_(network.weight * mask)
        if plain.bias is not None and network.bias is not None:
            plain.bias.copy_(network.bias)
    return plain.eval()


def _unknown(name: str, what: str) -> PairError:
    return PairError(
        f"codec {name}: expected a factorized prior, a hyperprior or a checkerboard context, named as CompressAI names "
        f"them, got {what}. Its parts cannot be exported; deploy it as one safetensors file with `--to model`."
    )
