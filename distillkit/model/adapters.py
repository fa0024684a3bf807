"""One way to talk to any learned image codec."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..data.samples import RGB, Samples
from ..errors import PairError
from .entropy_models import prepare_entropy_models
from .nesting import flatten_strings, is_plain, nest_strings
from .surrogate import Surrogate, set_surrogate


@dataclass(frozen=True)
class CodecOutput:
    """What a codec's forward pass gives.

    Attributes:
        x_hat: reconstruction, shape (B, C, H, W), nominal range [0, 1], not clamped.
        likelihoods: probability of every latent element by latent (`"y"`, `"z"`), each of shape (B, C, h, w), in
            (0, 1].
    """

    x_hat: Tensor
    likelihoods: Mapping[str, Tensor]


@dataclass(frozen=True)
class CompressedLatents:
    """What a codec's entropy coder gives for one batch.

    Attributes:
        strings: one list of B byte strings for each substream, in the codec's own order.
        shape: the codec's own description of the latents' sizes: ints in any nesting of dicts, lists and tuples.
    """

    strings: list[list[bytes]]
    shape: Any


class CodecAdapter(ABC):
    """The interface through which distillkit uses every codec; subclass it for a codec with another API.

    Attributes:
        module: the codec's network; everything trainable and every buffer is inside.
        stride: images passed to `forward` and `compress` have H and W that are multiples of this many pixels.
        samples: of its pictures; with C channels, images have shape (B, C, H, W), and 1 is the peak value.
        trainable: patterns (fnmatch) of the names of parameters that may be trained; the others stay as they are.
        reads: fingerprints of other models with the same entropy path, whose files of format version 3 the codec
            decodes; such files name no path.
    """

    module: nn.Module
    stride: int
    samples: Samples = RGB
    trainable: tuple[str, ...] = ("*",)
    reads: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, images: Tensor) -> CodecOutput:
        """Run the codec on `images`, shape (B, C, H, W), range [0, 1]; noise or rounding by the module's mode."""

    @abstractmethod
    def compress(self, images: Tensor) -> CompressedLatents:
        """Entropy-code `images`, shape (B, C, H, W), range [0, 1]."""

    @abstractmethod
    def decompress(self, latents: CompressedLatents) -> Tensor:
        """Return the reconstruction, shape (B, C, H, W), that `compress` coded."""

    def set_surrogate(self, surrogate: Surrogate | None) -> None:
        """Choose what the decoder receives in training; the estimate of the rate and eval mode do not change.

        By default it works on CompressAI's entropy models and latent codecs. Override it for others.

        Args:
            surrogate: `noise` of one quantisation step, or `rounding` with a straight-through gradient; None restores
                the codec's own.

        Raises:
            PairError: the codec cannot do that.
        """
        set_surrogate(self.module, surrogate)

    def aux_loss(self) -> Tensor | None:
        """Return the loss of the entropy bottlenecks' quantiles (unitless), or None if the codec has none."""
        return None

    def quantile_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that only `aux_loss` trains; they get a separate optimiser."""
        return []

    def update(self) -> None:  # noqa: B027 - a codec without tables has nothing to do
        """Compute the entropy coder's tables from the trained parameters."""


class CompressAIAdapter(CodecAdapter):
    """A codec with CompressAI's model API: `forward`, `compress`, `decompress`, `update`, `aux_loss`.

    The last two may be missing, outputs may hold more than `x_hat` and `likelihoods`, and `strings` may be nested in
    any way that is the same for every image. For a codec of which one method differs, override that method.

    Entropy models (modules that hold a `_quantized_cdf` table) are kept in float32 under mixed precision: differences
    of cumulative probabilities are meaningless in bfloat16.

    Args:
        module: the codec.
        stride: see `CodecAdapter`; by default the module's `downsampling_factor`, else 64.
        samples: of its pictures; by default 8-bit RGB.

    Raises:
        PairError: the module has another API.
    """

    def __init__(self, module: nn.Module, stride: int | None = None, samples: Samples = RGB) -> None:
        own = {each for each in ("forward", "compress", "decompress") if each not in _overridden(type(self))}
        for method in sorted(own):
            if not callable(getattr(module, method, None)):
                raise PairError(
                    f"codec {type(module).__name__}: expected CompressAI's model API, but it has no method {method!r}. "
                    "Wrap it in a distillkit.CodecAdapter."
                )
        for method, given in (("compress", ("x",)), ("decompress", ("strings", "shape"))):
            if method not in own:
                continue
            try:
                inspect.signature(getattr(module, method)).bind(*given)
            except ValueError:  # a compiled method has no signature
                continue
            except TypeError as error:
                raise PairError(
                    f"codec {type(module).__name__}: expected {method}({', '.join(given)}), as CompressAI's models "
                    f"have it, got one that cannot be called so ({error}). Wrap the codec in a distillkit.CodecAdapter."
                ) from None
        self.module = module
        self.stride = int(stride or getattr(module, "downsampling_factor", 64))
        self.samples = samples
        prepare_entropy_models(module)

    @override
    def forward(self, images: Tensor) -> CodecOutput:
        output = self.module(images)
        x_hat, likelihoods = self._entries(output, "forward", "x_hat", "likelihoods")
        if not isinstance(likelihoods, Mapping):
            raise PairError(
                f"codec {type(self.module).__name__}: expected likelihoods by name ('y', 'z'), got "
                f"{type(likelihoods).__name__}. Wrap the codec in a distillkit.CodecAdapter."
            )
        # Codecs that code groups of channels one after the other may list the likelihoods of each.
        joined = {name: torch.cat(each, 1) if isinstance(each, list) else each for name, each in likelihoods.items()}
        return CodecOutput(x_hat, _usual_names(cast(Mapping[str, Tensor], joined)))

    @override
    def compress(self, images: Tensor) -> CompressedLatents:
        output = cast(Any, self.module).compress(images)
        nested, shape = self._entries(output, "compress", "strings", "shape")
        strings, nesting = flatten_strings(nested, len(images))
        return CompressedLatents(strings, shape if is_plain(nesting) else {"shape": shape, "strings": nesting})

    @override
    def decompress(self, latents: CompressedLatents) -> Tensor:
        strings, shape = latents.strings, latents.shape
        if isinstance(shape, dict) and shape.keys() == {"shape", "strings"}:  # as `compress` made it
            strings, shape = nest_strings(strings, shape["strings"]), shape["shape"]
        return self._entries(cast(Any, self.module).decompress(strings, shape), "decompress", "x_hat")[0]

    @override
    def aux_loss(self) -> Tensor | None:
        if not self.quantile_parameters():
            return None
        if hasattr(self.module, "aux_loss"):
            return cast(Any, self.module).aux_loss()
        bottlenecks = (module for module in self.module.modules() if hasattr(module, "quantiles"))
        return torch.stack([cast(Any, bottleneck).loss() for bottleneck in bottlenecks]).sum()

    @override
    def quantile_parameters(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.module.named_parameters() if name.endswith(".quantiles")]

    @override
    def update(self) -> None:
        update = getattr(self.module, "update", None)
        if update is not None:
            # CompressAI can solve for the quantiles instead of waiting for the aux loss to get there.
            known = inspect.signature(update).parameters
            update(**{option: True for option in ("force", "update_quantiles") if option in known})

    def _entries(self, output: Any, method: str, *keys: str) -> list[Any]:
        """Return what a method of the module returned under these keys."""
        if isinstance(output, Mapping) and all(key in output for key in keys):
            return [output[key] for key in keys]
        mapping = cast(Mapping[str, Any], output) if isinstance(output, Mapping) else None
        got = f"one with {', '.join(map(str, mapping))}" if mapping is not None else f"a {type(output).__name__}"
        raise PairError(
            f"codec {type(self.module).__name__}: expected a dict with {' and '.join(keys)} from {method}, as "
            f"CompressAI's models return it, got {got}. Wrap the codec in a distillkit.CodecAdapter."
        )


def _overridden(adapter: type[CompressAIAdapter]) -> set[str]:
    """Return the names that a subclass defines itself."""
    classes = adapter.__mro__[: adapter.__mro__.index(CompressAIAdapter)]
    return {name for each in classes for name in vars(each)}


def _usual_names(likelihoods: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return likelihoods by latent: `y_likelihoods` is `y`; without a `y`, it is the one of finest resolution."""
    short = {re.sub(r"_?likelihoods?_?", "", name) or name: each for name, each in likelihoods.items()}
    named = short if len(short) == len(likelihoods) else dict(likelihoods)
    sizes = {name: math.prod(each.shape[2:]) for name, each in named.items() if each.ndim == 4}
    finest = [name for name, size in sizes.items() if size == max(sizes.values())]
    if "y" not in named and len(finest) == 1:
        named = {"y" if name == finest[0] else name: each for name, each in named.items()}
    return named


def as_codec(codec: nn.Module | CodecAdapter) -> CodecAdapter:
    """Return an adapter for `codec`: itself if it is one, otherwise a `CompressAIAdapter` around it.

    Raises:
        PairError: the module has no API that distillkit knows.
    """
    return codec if isinstance(codec, CodecAdapter) else CompressAIAdapter(codec)


def fingerprint(module: nn.Module) -> str:
    """Return a hash of a module's weights and buffers (names, types, shapes, bytes): 32 hexadecimal digits."""
    return _digest(module.state_dict())


def entropy_path(module: nn.Module) -> str:
    """Return a hash of what decides how a codec's bytes become latents: 32 hexadecimal digits.

    It is that of `fingerprint` over all but the analysis, hyper-analysis and synthesis transforms: modules called
    `g_a`, `h_a` and `g_s`, as CompressAI calls them. Codecs that share it read one another's files; if those modules
    have other names, only one with all the same weights does.
    """
    transforms = {"g_a", "h_a", "g_s"}
    state = {name: tensor for name, tensor in module.state_dict().items() if transforms.isdisjoint(name.split("."))}
    for name in state:
        if name.endswith(".mask") and f"{name[:-5]}.weight" in state:  # CompressAI's mask when they first run
            state[f"{name[:-5]}.weight"] = state[f"{name[:-5]}.weight"] * state[name]
    return _digest(state)


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
