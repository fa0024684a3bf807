"""Where a tap's features come from: a module or a method, by path, and how its output becomes a feature map."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn


@final
@dataclass(frozen=True)
class Tap:
    """A place in a codec; where a plain path is enough, a pair can name that instead.

    Attributes:
        path: of a module (`g_a.3`) or of a method of one (`analysis`, `g_a.encode`); or several paths, whose features
            make a list.
        read: what makes features of its output, of shape (B, C, H, W) or, as tokens in raster order, (B, H * W, C), or
            a list of such tensors of one resolution (a latent that is coded in groups of channels); None where the
            output is that itself.
        takes: whether the features are what the module or method takes, its first argument, instead of what it
            returns: what `g_s` takes is the quantised latent.
    """

    path: str | tuple[str, ...]
    read: Callable[[Any], Tensor | list[Tensor]] | None = None
    takes: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path


def as_map(features: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    """Return features as a map of shape (B, C, H, W), or None if they are none.

    Args:
        features: a map, or tokens in raster order, of shape (B, H * W, C), of the image's aspect ratio.
        image_size: height and width of the codec's input in pixels.
    """
    if features.ndim == 4:
        return features
    if features.ndim != 3 or features.shape[1] == 0:
        return None
    height, width = image_size
    reduction = math.isqrt(height * width // features.shape[1])
    if reduction == 0 or height % reduction or width % reduction:
        return None
    rows, columns = height // reduction, width // reduction
    return features.transpose(1, 2).unflatten(2, (rows, columns)) if rows * columns == features.shape[1] else None


def find_method(root: nn.Module, path: str) -> tuple[nn.Module, str] | None:
    """Return the module that has the method of this path, and the method's name, or None if there is none."""
    parent, _, name = path.rpartition(".")
    owner = dict(root.named_modules()).get(parent)
    return (owner, name) if owner is not None and callable(getattr(owner, name, None)) else None


@contextmanager
def listening(owner: nn.Module, method: str, heard: Callable[[Any], None], takes: bool = False) -> Generator[None]:
    """Call `heard(output)` whenever `owner.method` returns, for as long as the context lasts.

    Args:
        owner: the module.
        method: name of its method.
        heard: what to call.
        takes: call `heard` with the method's first argument instead, before it runs.
    """
    before = getattr(owner, method)
    own = owner.__dict__.get(method)  # of the object itself, not of its class

    def call(*args: Any, **kwargs: Any) -> Any:
        if takes:
            heard(first_argument(args, kwargs))
            return before(*args, **kwargs)
        output = before(*args, **kwargs)
        heard(output)
        return output

    owner.__dict__[method] = call
    try:
        yield
    finally:
        if own is None:
            del owner.__dict__[method]
        else:
            owner.__dict__[method] = own


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the first argument of a call, however it was given; None if there is none."""
    return args[0] if args else next(iter(kwargs.values()), None)


@contextmanager
def eval_mode(network: nn.Module) -> Generator[None]:
    """Put a network into eval mode for as long as the context lasts; each part then has the mode that it had."""
    was_training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training
