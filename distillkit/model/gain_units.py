"""Gain units: what makes a codec of one rate a codec of many, with a few hundred numbers for each quality.

Between the transforms a latent is in quantisation steps. A gain unit multiplies each of its channels before it is
quantised and the inverse unit divides it afterwards, so that one network codes with steps of any size.

Source: Cui et al. (2021), "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation", arXiv 2003.02012:
a vector of gains and one of inverse gains for each quality, interpolated geometrically between two of them.
Departure: the logarithms are learnt, so that gains stay above zero and interpolation is linear; gains start on the
geometric line that theory gives for high rates (step size proportional to `lmbda ** -0.5`), where the paper's start is
not given.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..errors import PairError
from .adapters import CodecAdapter, CodecOutput, CompressedLatents, as_codec
from .conditioned import MIDDLE, ConditionedAdapter

#: Gain at quality 1 over that at quality 0, to begin with: the root of the usual range of lambdas, .0483 / .0018.
START_SPAN = math.sqrt(0.0483 / 0.0018)
_PLACES = {"g_a": "y", "g_s": "y_inverse", "h_a": "z", "h_s": "z_inverse"}


@final
class GainUnits(nn.Module):
    """The gains of a codec: `y` and, where there is a hyper-latent, `z`, each with its inverse.

    Parameters are natural logarithms of gains, shape (levels, channels). Those of `z` begin at zero: the content of the
    hyper-latent hardly depends on the quality.

    Attributes:
        quality: that the hooks apply, in [0, 1]: a number, or shape (B,); None changes no latents.
    """

    def __init__(self, num_levels: int, channels: dict[str, int]) -> None:
        """Begin on the geometric line.

        Args:
            num_levels: qualities at which gains are learnt, evenly spaced from 0 to 1.
            channels: `y` and perhaps `z` -> number of channels.
        """
        super().__init__()
        self.quality: Tensor | float | None = MIDDLE
        line = (torch.linspace(0, 1, num_levels) - MIDDLE) * math.log(START_SPAN)
        for latent, width in channels.items():
            logs = (line if latent == "y" else torch.zeros(num_levels))[:, None].repeat(1, width)
            self.register_parameter(latent, nn.Parameter(logs))
            self.register_parameter(f"{latent}_inverse", nn.Parameter(-logs.clone()))

    def gains(self, unit: str, quality: Tensor | float) -> Tensor:
        """Return the gains of a unit (`y`, `y_inverse`, ...) at these qualities, shape (B, C); B is 1 for a number."""
        logs = self.get_parameter(unit)
        levels = torch.arange(len(logs), dtype=logs.dtype, device=logs.device)
        places = torch.as_tensor(quality, dtype=logs.dtype, device=logs.device).reshape(-1, 1) * (len(logs) - 1)
        return ((1 - (places - levels).abs()).clamp(min=0) @ logs).exp()

    def scaled(self, unit: str, latent: Tensor) -> Tensor:
        """Return a latent, shape (B, C, h, w), times the gains of a unit at the quality that is set."""
        if self.quality is None:
            return latent
        gains = self.gains(unit, self.quality)[:, :, None, None]
        return (latent.to(gains.dtype) * gains).to(latent.dtype)

    def on_output(self, unit: str, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Scale what a transform gives: a forward hook."""
        return self.scaled(unit, output)

    def on_input(self, unit: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Scale what a transform is given: a forward pre-hook."""
        return self.scaled(unit, args[0]), *args[1:]


@final
class GainedCodec(ConditionedAdapter):
    """A codec of one rate with gain units, which make it one of many.

    The units are a submodule `gain` of the codec's own module and act by hooks around its transforms `g_a`, `g_s` and,
    where it has them, `h_a` and `h_s`. Names of weights and taps do not change, so it can start from the trained codec
    of one rate (`initial_weights`), and everything between the transforms works in quantisation steps as before. The
    taps of the latents are those that are quantised, gains included.

    Args:
        codec: the codec; its module is changed.
        num_levels: qualities at which gains are learnt, 2 or more, evenly spaced from 0 to 1.

    Raises:
        PairError: the codec has no analysis and synthesis transform of those names, or several.
    """

    def __init__(self, codec: nn.Module | CodecAdapter, num_levels: int = 6) -> None:
        self._codec = as_codec(codec)
        self.module, self.stride = self._codec.module, self._codec.stride
        self.samples = self._codec.samples
        name = type(self.module).__name__
        if isinstance(codec, ConditionedAdapter) or num_levels < 2:
            raise PairError(
                f"codec {name}: expected one of a single rate and at least 2 levels of gain, got "
                f"{num_levels} levels for a {type(codec).__name__}; correct the pair."
            )
        found = {place: _named(self.module, place) for place in _PLACES}
        if (
            len(found["g_a"]) != 1
            or len(found["g_s"]) != 1
            or len(found["h_a"]) > 1
            or len(found["h_a"]) != len(found["h_s"])
        ):
            counts = ", ".join(f"{len(modules)} {place}" for place, modules in found.items())
            raise PairError(
                f"codec {name}: expected one module called g_a, one g_s, and one h_a and h_s or neither, got {counts}; "
                "gain units have no place. Write a distillkit.ConditionedAdapter for it."
            )
        transforms = {place: modules[0] for place, modules in found.items() if modules}
        self._gains = GainUnits(num_levels, _channels(self._codec, transforms))
        self.module.add_module("gain", self._gains)
        for place, transform in transforms.items():
            self.attach(place, transform)

    @override
    def forward(self, images: Tensor, quality: Tensor | float = MIDDLE) -> CodecOutput:
        with self._at(quality):
            return self._codec.forward(images)

    @override
    def compress(self, images: Tensor, quality: float = MIDDLE) -> CompressedLatents:
        with self._at(quality):
            return self._codec.compress(images)

    @override
    def decompress(self, latents: CompressedLatents, quality: float = MIDDLE) -> Tensor:
        with self._at(quality):
            return self._codec.decompress(latents)

    @override
    def aux_loss(self) -> Tensor | None:
        return self._codec.aux_loss()

    @override
    def quantile_parameters(self) -> list[nn.Parameter]:
        return self._codec.quantile_parameters()

    @override
    def update(self) -> None:
        self._codec.update()

    def attach(self, place: str, transform: nn.Module) -> None:
        """Have the gains act around another network, which takes a transform's place.

        Args:
            place: `g_a`, `g_s`, `h_a` or `h_s`.
            transform: the network.
        """
        unit = _PLACES[place]
        if unit.endswith("inverse"):
            transform.register_forward_pre_hook(partial(self._gains.on_input, unit))
        else:
            transform.register_forward_hook(partial(self._gains.on_output, unit))

    @property
    def gain_units(self) -> GainUnits:
        """The gains, which the hooks apply."""
        return self._gains

    @contextmanager
    def _at(self, quality: Tensor | float) -> Generator[None]:
        before, self._gains.quality = self._gains.quality, quality
        try:
            yield
        finally:
            self._gains.quality = before


def _named(module: nn.Module, name: str) -> list[nn.Module]:
    # CompressAI's latent codecs hold an identity under the name of an absent network.
    found = [part for path, part in module.named_modules() if path.rpartition(".")[2] == name]
    return [part for part in found if not isinstance(part, nn.Identity)]


@torch.no_grad()
def _channels(codec: CodecAdapter, transforms: dict[str, nn.Module]) -> dict[str, int]:
    """Return the number of channels of each latent, from one blank image."""
    widths: dict[str, int] = {}

    def note(latent: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        widths[latent] = args[0].shape[1]

    places = [(place, latent) for place, latent in (("g_s", "y"), ("h_s", "z")) if place in transforms]
    hooks = [transforms[place].register_forward_pre_hook(partial(note, latent)) for place, latent in places]
    training = {part: part.training for part in codec.module.modules()}
    codec.module.eval()
    try:
        device = next(codec.module.parameters()).device
        codec.forward(torch.zeros(1, codec.samples.channels, codec.stride, codec.stride, device=device))
    finally:
        for part, was_training in training.items():
            part.training = was_training
        for hook in hooks:
            hook.remove()
    return widths
