"""Finds taps by role in a codec, from one forward pass in which its modules were observed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data.samples import Samples
from ..hooks.components import Component
from ..model.adapters import CodecAdapter, as_codec
from .bank import TapShape
from .points import Tap, as_map, eval_mode, first_argument


class TracedModule(NamedTuple):
    """A module that ran in a probe: path, class's name, its output's shape (C, H, W), and the module that holds it.

    `takes` is the shape of its first argument; None if that is not one feature map.
    """

    path: str
    type_name: str
    shape: TapShape
    owner: nn.Module | None = None
    takes: TapShape | None = None


class TapProvider(Component, ABC):
    """Finds the taps of a codec by role, whatever the codec's own names. Built as `Provider(config)`.

    Roles are `analysis.1/R` and `synthesis.1/R` (the output of the stage of the analysis or synthesis transform whose
    feature maps have 1/R of the image's height), `latent` (y before quantisation) and `reconstruction`; a provider may
    add others.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def find(self, trace: Sequence[TracedModule], image_size: tuple[int, int]) -> Mapping[str, str | Tap]:
        """Return role -> module path, or `Tap`.

        Args:
            trace: every module of the codec that gave one feature map, in the order in which they finished.
            image_size: height and width of the probe's image in pixels.
        """


def trace_modules(codec: CodecAdapter, images: Tensor) -> list[TracedModule]:
    """Run the codec once in eval mode and return every module that gave one feature map, in finishing order.

    Tokens, shape (B, H * W, C), count as a map, see `as_map`.
    """
    trace: list[TracedModule] = []
    image_size = (images.shape[2], images.shape[3])

    def record(path: str, module: nn.Module) -> Callable[..., None]:
        def shape_of(features: Any) -> TapShape | None:
            features = as_map(features, image_size) if isinstance(features, Tensor) else None
            return None if features is None else TapShape(*features.shape[1:])

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if (shape := shape_of(output)) is not None:
                owner = codec.module.get_submodule(path.rpartition(".")[0])
                takes = shape_of(first_argument(args, kwargs))
                trace.append(TracedModule(path, type(module).__name__, shape, owner, takes))

        return hook

    named = [(path, module) for path, module in codec.module.named_modules() if path]
    handles = [module.register_forward_hook(record(path, module), with_kwargs=True) for path, module in named]
    try:
        with eval_mode(codec.module), torch.no_grad():
            codec.forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return trace


def find_taps(
    codec: nn.Module | CodecAdapter, provider: TapProvider, image_size: tuple[int, int]
) -> Mapping[str, str | Tap]:
    """Return the taps (role -> module path, or `Tap`) that a provider finds in a codec.

    Args:
        codec: to look into.
        provider: that finds them.
        image_size: height and width of the images in pixels.
    """
    adapter = as_codec(codec)
    device = next(adapter.module.parameters()).device
    return provider.find(trace_modules(adapter, probe_image(image_size, adapter.samples, device)), image_size)


def probe_image(size: tuple[int, int], samples: Samples, device: torch.device) -> Tensor:
    """Return the image with which a codec is probed, shape (1, C, H, W): the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((1, samples.channels, *size), generator=generator).to(device)
