"""A stand-in for CUDA graphs on any device: what torch's operators did is recorded and done again, without Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from ..training.step.graphs import CannotCaptureError
from .waits import is_view, waiting


@final
class RecordedGraph:
    """Records operators with the tensors that they took and gave, and repeats them on the same memory.

    As with a CUDA graph, shapes are static, nothing is read on the host, and Python's numbers are frozen; work that
    breaks one of these rules is refused, or gives other results than it does without.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[Any, Any, Any, list[Any]]] = []

    @property
    def num_calls(self) -> int:
        """How many operators are repeated."""
        return len(self._calls)

    def capture(self, work: Callable[[], None]) -> None:
        """Do the work, and record it.

        Raises:
            CannotCaptureError: it reads from the device, or makes a tensor of Python's numbers. Torch's generator is
                where it was.
        """
        before = torch.get_rng_state()
        try:
            with _Recorder(self._calls):
                work()
        except CannotCaptureError:
            torch.set_rng_state(before)
            raise

    @torch.no_grad()
    def replay(self) -> None:
        """Repeat the operators."""
        for operator, args, kwargs, outputs in self._calls:
            results = tree_leaves(operator(*args, **kwargs))
            if operator._schema.is_mutable:
                continue
            for output, result in zip(outputs, results, strict=True):
                if isinstance(output, Tensor):
                    if output.shape != result.shape:
                        raise CannotCaptureError(f"{operator}: expected shape {output.shape}, got {result.shape}")
                    output.copy_(result)


class _Recorder(TorchDispatchMode):
    def __init__(self, calls: list[tuple[Any, Any, Any, list[Any]]]) -> None:
        super().__init__()
        self._calls = calls

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := waiting(func, args)) is not None:
            raise CannotCaptureError(f"aten.{name} reads from the device, or brings a number of Python's to it")
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace == "aten" and not is_view(func):
            self._calls.append((func, args, kwargs, tree_leaves(result)))
        return result
