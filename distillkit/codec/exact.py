"""The number type of what a codec's own code computes while it codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .fast.transforms import to_dtype

_FROM_NOTHING = {torch.zeros, torch.ones, torch.empty, torch.full, torch.tensor, torch.arange, torch.linspace}


#: The transforms, by name: what they give is rounded and coded, or shown. The hyper-analysis is the encoder's alone.
TRANSFORMS = ("g_a", "h_a", "g_s")


def use_exact(
    module: nn.Module,
    exact: torch.dtype,
    transform: Callable[[str, nn.Module], nn.Module],
    rewrite: Callable[[nn.Module], object] = id,
) -> list[nn.Module]:
    """Have all of a codec but its transforms computed in a number type; return what took the transforms' places.

    Args:
        module: the codec's network; it is changed.
        exact: the type; tensors of other floating types are converted where they meet parameters.
        transform: gives what takes the place of a transform, from its name and itself.
        rewrite: receives the module while the transforms are taken out of it.
    """
    places = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if name in TRANSFORMS and not isinstance(child, nn.Identity)
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
            made[child] = transform(name, child)
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
