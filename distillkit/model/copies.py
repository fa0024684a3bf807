"""Copies of codecs, also of those that hold what cannot be copied."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn

from .adapters import CodecAdapter


def copy_codec(codec: CodecAdapter, replaced: Mapping[int, Any] | None = None) -> CodecAdapter:
    """Return a deep copy of a codec; it shares what cannot be copied, such as a coder that is an object of C++.

    Args:
        codec: with its module.
        replaced: id -> what takes an object's place in the copy.

    Raises:
        RuntimeError: the module keeps a tensor with a gradient's history.
        TypeError: something else cannot be copied.
    """
    memo = dict(replaced or {})
    try:
        return copy.deepcopy(codec, dict(memo))
    except TypeError:
        shared = {id(value): value for part in codec.module.modules() for value in _not_copied(part, set())}
        return copy.deepcopy(codec, shared | memo)


def _not_copied(owner: Any, seen: set[int]) -> Iterator[Any]:
    """Yield what cannot be copied in an object's attributes and in the objects and containers that they hold."""
    if id(owner) in seen:
        return
    seen.add(id(owner))
    if isinstance(owner, Mapping):
        values = list(cast("Mapping[Any, Any]", owner).values())
    elif isinstance(owner, (list, tuple, set)):
        values = list(cast("list[Any]", owner))
    else:
        values = list(vars(owner).values())
    for value in values:
        if isinstance(value, (Tensor, nn.Module, type)):
            continue
        if isinstance(value, (Mapping, list, tuple, set)) or hasattr(value, "__dict__"):
            yield from _not_copied(value, seen)
        elif not _can_be_copied(value):
            yield value


def _can_be_copied(value: Any) -> bool:
    try:
        value.__reduce_ex__(4)
    except TypeError:
        return False
    return True
