"""A codec's own description of its latents' sizes, for pictures of any size, learnt from two blank ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..errors import PairError
from ..model.adapters import CodecAdapter


def shape_rule(codec: CodecAdapter) -> Callable[[Any, Any], Any]:
    """Return the function from rows and columns of a picture, in strides, to the codec's shape."""
    stride = codec.stride
    with torch.no_grad():
        codec.module.eval()
        blanks = (torch.zeros(1, codec.samples.channels, stride * r, stride * c) for r, c in ((1, 1), (2, 3)))
        shapes = [codec.compress(blank).shape for blank in blanks]
    where = f"codec {type(codec.module).__name__}: shape"
    return lambda rows, columns: grown(shapes[0], shapes[1], rows, columns, where)


def grown(small: Any, large: Any, rows: int, columns: int, where: str) -> Any:
    """Return the codec's shape for an image of `rows` x `columns` strides, in the same nesting.

    Args:
        small: its shape for 1x1 strides.
        large: its shape for 2x3 strides; a leaf that grew 2-fold goes with the rows, 3-fold with the columns.
        rows: padded height in strides.
        columns: padded width in strides.
        where: names this part of the shape in errors.
    """
    if isinstance(small, dict) and isinstance(large, dict) and small.keys() == large.keys():
        return {key: grown(small[key], large[key], rows, columns, f"{where}[{key!r}]") for key in small}
    if isinstance(small, (list, tuple)) and isinstance(large, (list, tuple)) and len(small) == len(large):
        pairs = enumerate(zip(small, large, strict=True))
        return type(small)([grown(a, b, rows, columns, f"{where}[{index}]") for index, (a, b) in pairs])
    if isinstance(small, int) and isinstance(large, int):
        for factor, growth in ((1, 1), (2, rows), (3, columns)):
            if large == factor * small:
                return growth * small
    raise PairError(
        f"{where}: expected ints that are constant or proportional to the padded height or width, got {small!r} for an "
        f"image of 1x1 strides and {large!r} for 2x3; give the codec a CodecAdapter whose shape is so."
    )
