"""Every image codec that the installed CompressAI registers, by its name, and what its class is built with."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import distillkit

if TYPE_CHECKING:
    from torch import Tensor, nn

_OTHER = {"video": "a video codec", "pointcloud": "a codec of point clouds"}
Argument = int | float | bool | tuple[int | float | bool, ...]  # no text: a stranger's file may name arguments


def find(name: str) -> type[nn.Module]:
    """Return the class of an image codec.

    Raises:
        ValueError: CompressAI registers none of that name.
    """
    from compressai.registry import MODELS  # compressai takes seconds to import
    from compressai.zoo import image_models  # noqa: F401 - importing it fills the registry

    if name not in MODELS:
        _import_all()
    images = {key: model for key, model in MODELS.items() if _other(model) is None}
    if name in images:
        return images[name]
    got = (name in MODELS and _other(MODELS[name])) or "which it does not know"
    hint = distillkit.did_you_mean(name, images)
    raise ValueError(
        f"expected an image codec that the installed CompressAI registers, got {name!r}, {got}.{hint} It has "
        f"{', '.join(sorted(images))}."
    )


def parameters(model: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a codec's class by name; where it passes all on, those of the class above."""
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for above in model.__mro__:
        named = inspect.signature(above).parameters
        if found := {name: each for name, each in named.items() if each.kind not in variadic}:
            return found
    return {}


def arguments_of(model: type[nn.Module], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments with which `from_state_dict` of a codec's class builds it for some weights.

    Raises:
        AttributeError: the class has no `from_state_dict`.
        Exception: whatever that raises of other weights.
    """
    given: list[dict[str, Any]] = []

    class Recorded(model):  # type: ignore[misc,valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given.append(inspect.signature(model).bind(*args, **kwargs).arguments)
            super().__init__(*args, **kwargs)

    model.from_state_dict.__func__(Recorded, dict(state))  # type: ignore[attr-defined]
    return {name: value for name, value in given[0].items() if name in parameters(model)}


def _other(model: type[nn.Module]) -> str | None:
    """Return what a codec codes, if that is not images."""
    return next((what for part, what in _OTHER.items() if part in model.__module__.split(".")), None)


def _import_all() -> None:
    """Import what the package does not import by itself; modules whose own packages are missing are left out."""
    models = importlib.import_module("compressai.models")
    for module in pkgutil.walk_packages(models.__path__, "compressai.models.", onerror=lambda _: None):
        with suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modules that were renamed
            importlib.import_module(module.name)
