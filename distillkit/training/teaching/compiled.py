"""A network's parts, compiled: the largest ones between its taps, so that hooks on these still fire."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn
from torch._dynamo import config as dynamo  # pyright: ignore[reportPrivateUsage]
from torch._dynamo.exc import TorchDynamoException  # pyright: ignore[reportPrivateUsage]
from torch._inductor.exc import InductorError  # pyright: ignore[reportPrivateUsage]

from ...errors import TrainingError


@final
class CompiledParts:
    """Compiled stand-ins for the forward passes of a network's parts, used while `active`.

    Entropy models are not compiled: they stay in float32, and their decisions should not change.

    Args:
        network: the codec's network.
        taps: paths of the modules and methods that are tapped in it.
        key: of the recipe, by which this was chosen, for errors.
        other: what that key may be instead.
    """

    def __init__(
        self, network: nn.Module, taps: Collection[str], key: str = "compile_teacher", other: str = "false"
    ) -> None:
        self._key, self._other = key, other
        self._parts: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._taps = taps
        for name, child in network.named_children():
            self._add(name, child)

    @property
    def num_parts(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    @contextmanager
    def active(self) -> Generator[None]:
        """Use the compiled parts; each is compiled when it first runs.

        Raises:
            TrainingError: a part cannot be compiled here.
        """
        for module, forward in self._parts:
            module.forward = forward
        try:
            # Parts of one class share their code, of which torch otherwise compiles eight versions and no more.
            with dynamo.patch(recompile_limit=8 * len(self._parts) + 8), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The .grad attribute")  # Dynamo looks at it on a part's inputs
                yield
        except (TorchDynamoException, InductorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise TrainingError(
                f"recipe {self._key}: the codec cannot be compiled on this machine: {reason}. Compiling needs a C++ "
                f"compiler (g++, clang) on a CPU and triton on a GPU; install it, or set {self._key} = {self._other}."
            ) from None
        finally:
            for module, _ in self._parts:
                del module.forward

    def _add(self, path: str, module: nn.Module) -> None:
        if hasattr(module, "_quantized_cdf"):
            return
        whole = not any(tap.startswith(path + ".") for tap in self._taps)
        codes = any(hasattr(part, "_quantized_cdf") for part in module.modules())
        if whole and not codes and any(True for _ in module.parameters()):
            self._parts.append((module, torch.compile(module.forward, dynamic=False)))
        else:
            for name, child in module.named_children():
                self._add(f"{path}.{name}", child)
