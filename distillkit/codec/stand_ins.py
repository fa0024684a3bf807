"""The classes of CompressAI's rANS coder, wherever a codec reaches them, replaced while it codes.

Other modules hold them under their own names (`from compressai.ans import BufferedRansEncoder`), and entropy models
hold objects of them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, final

from torch import nn

_METHODS = {  # the coder's classes, CompressAI's and its forks'; one with other methods is another coder
    "RansEncoder": {"encode_with_indexes"},
    "BufferedRansEncoder": {"encode_with_indexes", "flush"},
    "RansDecoder": {"decode_with_indexes", "set_stream", "decode_stream"},
}
_WITHOUT = sys.stdlib_module_names | {"torch", "numpy", "scipy", "sympy", "pandas", "torchvision", "matplotlib", "PIL"}
_answering: ContextVar[Coders | None] = ContextVar("answering", default=None)
_lock = threading.Lock()
_installed: dict[tuple[int, str], int] = {}  # how many codecs that code now need a name replaced


class Coders(Protocol):
    """Makes what takes the place of the coder's objects."""

    def made(self, kind: str) -> Any:
        """Return a coder of a kind: `RansEncoder`, `BufferedRansEncoder` or `RansDecoder`."""
        ...


@final
class _StandIn:
    """Replaces a coder's class: makes that class's objects or, while a codec's calls are answered, ours."""

    def __init__(self, original: type) -> None:
        self.original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        calls = _answering.get()
        return self.original(*args, **kwargs) if calls is None else calls.made(self.original.__name__)


@final
class StandIns:
    """What takes the place of the coder in one codec.

    Args:
        calls: what codes instead.
    """

    def __init__(self, calls: Coders) -> None:
        self._calls = calls
        self._names = list(_find_names())

    def of(self, module: nn.Module) -> dict[int, Any]:
        """Return id -> what takes its place for each coder that a network holds; coders cannot be copied."""
        return {id(coder): self._calls.made(type(coder).__name__) for _, _, coder in _find_held(module)}

    def put_into(self, module: nn.Module) -> None:
        """Replace the coders that a network holds."""
        for owner, name, coder in list(_find_held(module)):
            object.__setattr__(owner, name, self._calls.made(type(coder).__name__))

    @contextmanager
    def answering(self) -> Generator[None]:
        """Answer the calls that code of this thread makes, for as long as the context lasts."""
        token = _answering.set(self._calls)
        with _lock:
            for module, name, original in self._names:
                _installed[id(module), name] = _installed.get((id(module), name), 0) + 1
                setattr(module, name, _StandIn(original))
        try:
            yield
        finally:
            with _lock:
                for module, name, original in self._names:
                    _installed[id(module), name] -= 1
                    if _installed[id(module), name] == 0:
                        setattr(module, name, original)
            _answering.reset(token)


def calls_coder(module: nn.Module) -> bool:
    """Return whether a network holds a coder, or the files of its classes have one of the coder's names."""
    if next(_find_held(module), None) is not None:
        return True
    sources = {parent.__module__ for part in module.modules() for parent in type(part).__mro__}
    return any(owner.__name__ in sources for owner, _, _ in _find_names())


def _is_coder(value: type) -> bool:
    return _METHODS.get(value.__name__) == {name for name in dir(value) if not name.startswith("_")}


def _find_held(module: nn.Module) -> Iterator[tuple[Any, str, Any]]:
    """Yield owner, attribute and coder for what a network's modules hold, or plain objects in their attributes."""
    for part in module.modules():
        plain = [value for value in vars(part).values() if hasattr(value, "__dict__") and not isinstance(value, type)]
        for owner in (part, *(value for value in plain if not isinstance(value, nn.Module))):
            yield from ((owner, name, value) for name, value in list(vars(owner).items()) if _is_coder(type(value)))


def _find_names() -> Iterator[tuple[Any, str, type]]:
    """Yield module, name and class for each name that a module has for one of the coder's classes."""
    for full_name, module in list(sys.modules.items()):
        if full_name.partition(".")[0] in _WITHOUT:
            continue
        for name, value in list(getattr(module, "__dict__", {}).items()):
            original = value.original if type(value) is _StandIn else value
            # isinstance would ask the object, and a stand-in for something else may answer for that.
            if issubclass(type(original), type) and _is_coder(original):
                yield module, name, original
