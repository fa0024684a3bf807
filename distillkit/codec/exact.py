"""The number type of what a codec's own code computes while it codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..model.adapters import CodecAdapter
from ..model.conditioned import MIDDLE, ConditionedAdapter, at_quality
from .fast.transforms import to_dtype

_FROM_NOTHING = {torch.zeros, torch.ones, torch.empty, torch.full, torch.tensor, torch.arange, torch.linspace}


#: The transforms, by name: what they give is rounded and coded, or shown. The hyper-analysis is the encoder's alone.
_NAMES = ("g_a", "h_a", "g_s")


def find_transforms(adapter: CodecAdapter) -> dict[nn.Module, str]:
    """Return the transforms of a codec, and which each is: `g_a`, `h_a` or `g_s`.

    They have these names, at any depth. Where `g_a` or `g_s` is missing, the codec is run once, and the one child of it
    that takes a picture, once, is the analysis. The last child to run is the synthesis, if it gives a picture: what ran
    before the end may still choose the coder's tables.
    """
    module = adapter.module
    parts = [(name, child) for parent in module.modules() for name, child in parent.named_children()]
    named = {child: name for name, child in parts if name in _NAMES and not isinstance(child, nn.Identity)}
    if {"g_a", "g_s"} <= set(named.values()):
        return named
    runs: list[tuple[nn.Module, bool, bool]] = []  # and whether it takes a picture, and gives one
    shape = (1, adapter.samples.channels, adapter.stride, adapter.stride)

    def watch(child: nn.Module, args: Any, out: Any) -> None:
        runs.append((child, args != () and _has_shape(args[0], shape), _has_shape(out, shape)))

    hooks = [child.register_forward_hook(watch) for child in module.children()]
    try:
        device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            at_quality(adapter, MIDDLE if isinstance(adapter, ConditionedAdapter) else None).forward(
                torch.zeros(shape, device=device)
            )
    except Exception:  # of the codec's own code, which codes without
        return named
    finally:
        for hook in hooks:
            hook.remove()
    once = [run for run in runs if [child for child, *_ in runs].count(run[0]) == 1]
    takers = [child for child, takes, gives in once if takes and not gives]
    givers = [child for child, takes, gives in once if gives and not takes and child is runs[-1][0]]
    found = {"g_a": takers, "g_s": givers}
    more = {children[0]: name for name, children in found.items() if len(children) == 1}
    return named | {child: name for child, name in more.items() if name not in named.values()}


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == shape


def use_exact(
    module: nn.Module,
    roles: Mapping[nn.Module, str],
    exact: torch.dtype,
    transform: Callable[[str, nn.Module], nn.Module],
    rewrite: Callable[[nn.Module], object] = id,
) -> list[nn.Module]:
    """Have all of a codec but its transforms computed in a number type; return what took the transforms' places.

    Args:
        module: the codec's network; it is changed.
        roles: the transforms in it, see `find_transforms`.
        exact: the type; tensors of other floating types are converted where they meet parameters.
        transform: gives what takes the place of a transform, from its name and itself.
        rewrite: receives the module while the transforms are taken out of it.
    """
    places = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if child in roles
    ]
    for parent, name, _ in places:
        setattr(parent, name, nn.Identity())
    module.to(exact)
    rewrite(module)
    for part in module.modules():
        if any(True for _ in part.parameters(recurse=False)):
            part.register_forward_pre_hook(
                lambda _, args, kwargs: (
                    tuple(to_dtype(exact, value) for value in args),
                    {name: to_dtype(exact, value) for name, value in kwargs.items()},
                ),
                with_kwargs=True,
            )
    made: dict[nn.Module, nn.Module] = {}
    for parent, name, child in places:
        if child not in made:
            made[child] = transform(roles[child], child)
        setattr(parent, name, made[child])
    return list(made.values())


@final
class MakesTensorsOf(TorchFunctionMode):
    """While entered, new tensors that a codec makes have this type where they would be float32.

    Many codecs collect what they decode in `torch.zeros(...)`. If the encoder does not, the decoder's values are
    rounded and the encoder's are not, and a scale may fall on the other side of a table's edge. Only this thread is
    affected.

    Args:
        dtype: in place of float32.
        transforms: of the codec; inside them nothing is changed, for they have their own type.
    """

    def __init__(self, dtype: torch.dtype, transforms: Sequence[nn.Module]) -> None:
        super().__init__()
        self._dtype = dtype
        self._inside = 0
        for transform in transforms:
            transform.register_forward_pre_hook(lambda *_: self._count(1))
            transform.register_forward_hook(lambda *_: self._count(-1), always_call=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, and have what it makes in `dtype`."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if self._inside or func not in _FROM_NOTHING or kwargs.get("dtype") is not None:
            return made
        return to_dtype(self._dtype, made) if isinstance(made, Tensor) and made.dtype == torch.float32 else made

    def _count(self, change: int) -> None:
        self._inside += change
