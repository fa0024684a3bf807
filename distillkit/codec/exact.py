"""The number type of what a codec's own code computes while it codes."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .fast.transforms import Transform, to_dtype

_FROM_NOTHING = {torch.zeros, torch.ones, torch.empty, torch.full, torch.tensor, torch.arange, torch.linspace}


@final
class MakesTensorsOf(TorchFunctionMode):
    """While entered, tensors that a codec makes from nothing have this type where they would be float32.

    Many codecs collect what they decode in `torch.zeros(...)`. If the encoder does not, its values are rounded and the
    other's are not, and a scale may come to lie on the other side of a table's edge. Only this thread is concerned.

    Args:
        dtype: in place of float32.
        module: the codec's network; inside its transforms, which have a type of their own, nothing is changed.
    """

    def __init__(self, dtype: torch.dtype, module: nn.Module) -> None:
        super().__init__()
        self._dtype = dtype
        self._inside = 0
        for part in module.modules():
            if isinstance(part, Transform):
                part.register_forward_pre_hook(lambda *_: self._count(1))
                part.register_forward_hook(lambda *_: self._count(-1), always_call=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, and have what it makes in `dtype`."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if self._inside or func not in _FROM_NOTHING or kwargs.get("dtype") is not None:
            return made
        return to_dtype(self._dtype, made) if isinstance(made, Tensor) and made.dtype == torch.float32 else made

    def _count(self, change: int) -> None:
        self._inside += change
