"""Byte strings in any nesting, as codecs return them, to a plain list of substreams and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_OF_A_BATCH, _OF_ONE_IMAGE = 0, 1  # what stands in a nesting for a list of byte strings, and for a single one

Nesting = Any  # one of the two, in dicts and lists


def flatten_strings(strings: Any, batch: int) -> tuple[list[list[bytes]], Nesting]:
    """Return the substreams, each a list of one byte string an image, and their nesting.

    Args:
        strings: dicts, lists and tuples in any nesting, around lists of `batch` byte strings, or, in a batch of one,
            around single byte strings.
        batch: number of images.

    Raises:
        TypeError: something else is inside.
    """
    if isinstance(strings, bytes) and batch == 1:
        return [[strings]], _OF_ONE_IMAGE
    if isinstance(strings, (list, tuple)) and len(strings) == batch and all(isinstance(s, bytes) for s in strings):
        return [list(strings)], _OF_A_BATCH
    if not isinstance(strings, (dict, list, tuple)):
        raise TypeError(f"expected byte strings in dicts, lists and tuples, {batch} in a list, got {strings!r:.60}")
    keys = list(strings) if isinstance(strings, dict) else range(len(strings))
    parts = [flatten_strings(strings[key], batch) for key in keys]
    flat = [substream for substreams, _ in parts for substream in substreams]
    nestings = [nesting for _, nesting in parts]
    return flat, dict(zip(keys, nestings, strict=True)) if isinstance(strings, dict) else nestings


def nest_strings(substreams: list[list[bytes]], nesting: Nesting) -> Any:
    """Return the substreams as before `flatten_strings`, with lists instead of tuples."""
    return _nest(iter(substreams), nesting)


def is_plain(nesting: Nesting) -> bool:
    """Return whether the strings were a list of lists over the batch already."""
    return isinstance(nesting, list) and all(part == _OF_A_BATCH for part in nesting)


def _nest(rest: Iterator[list[bytes]], nesting: Nesting) -> Any:
    if isinstance(nesting, dict):
        return {key: _nest(rest, part) for key, part in nesting.items()}
    if isinstance(nesting, (list, tuple)):
        return [_nest(rest, part) for part in nesting]
    substream = next(rest)
    return substream[0] if nesting == _OF_ONE_IMAGE else substream
