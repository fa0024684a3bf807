"""Transforms of pictures too large for memory, tile by tile: the same values up to rounding, so there are no seams.

A tile is computed with a margin around it, as wide as the transform sees, and the margin is thrown away. How far it
sees is measured on the network itself: half of a long strip is changed, and the reach of the change in the output is
the answer. Tiles start at whole strides of the codec, so attention windows, whose side divides the stride, fall on the
same places.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

TILE_PIXELS = 2048  #: side of a tile; a picture of more than its square is cut
_MOST_STRIDES = 32  # a network that sees further is run on the whole picture
_ROUNDING = 1e-3  # of the largest value; a seam of a wrong margin is far above


def find_margin(network: nn.Module, channels: int, align: int) -> int | None:
    """Return how far a network sees, in positions of its input, rounded up to a multiple of `align`.

    Args:
        network: from (1, C, h, w) to (1, C', h', w'); it is not changed.
        channels: C.
        align: positions of its input for each stride of the codec.

    Returns:
        The margin, or None where there is none: the network sees too far, or differs from tile to tile.
    """
    network = copy.deepcopy(network).float()
    half = align * _MOST_STRIDES // 4
    while half <= align * _MOST_STRIDES:
        reaches = [_reach(network, channels, align, half, seed, turned) for seed in (0, 1) for turned in (False, True)]
        if max(reaches) < half:
            margin = -(-max(reaches) // align) * align
            return margin if _fits(network, channels, align, margin) else None
        half *= 2
    return None


def run_in_tiles(run: Callable[[Tensor], Tensor], x: Tensor, side: int, margin: int) -> Tensor:
    """Return run(x), computed in tiles.

    Args:
        run: a transform.
        x: shape (1, C, h, w).
        side: of a tile in positions of x; a multiple of the codec's stride.
        margin: around each tile, see `find_margin`.
    """
    height, width = x.shape[2:]
    out = None
    for top in range(0, height, side):
        for left in range(0, width, side):
            bottom, right = min(top + side, height), min(left + side, width)
            first_row, first_column = max(top - margin, 0), max(left - margin, 0)
            part = run(x[:, :, first_row : bottom + margin, first_column : right + margin])
            scale = Fraction(part.shape[2], min(bottom + margin, height) - first_row)
            rows, columns = int(height * scale), int(width * scale)
            if out is None:
                out = part.new_empty(1, part.shape[1], rows, columns)
            place = [int(edge * scale) for edge in (top, bottom, left, right)]
            row, column = int((top - first_row) * scale), int((left - first_column) * scale)
            tile = part[:, :, row : row + place[1] - place[0], column : column + place[3] - place[2]]
            out[:, :, place[0] : place[1], place[2] : place[3]] = tile
    assert out is not None  # no side of x is 0
    return out


def _strip(network: nn.Module, channels: int, align: int, half: int, seed: int) -> Tensor:
    like = next(network.parameters(), torch.zeros(0))
    values = torch.randn(1, channels, align, 2 * half, generator=torch.Generator().manual_seed(seed))
    return values.to(like.device)


def _reach(network: nn.Module, channels: int, align: int, half: int, seed: int, turned: bool) -> int:
    """Return how many positions from the middle of a strip the output differs when the other half is changed."""
    before, other = (_strip(network, channels, align, half, 2 * seed + number) for number in (0, 1))

    def run(strip: Tensor) -> Tensor:
        out = network(strip.transpose(2, 3).contiguous() if turned else strip)
        return out.transpose(2, 3) if turned else out

    original, reach = run(before), 0
    for changed in (slice(half, None), slice(None, half)):
        after = before.clone()
        after[..., changed] = 4 * other[..., changed]
        differs = (run(after) != original).any(2).any(1)[0].nonzero()
        scale = Fraction(original.shape[3], 2 * half)
        if changed.start is None:
            far = Fraction(int(differs.max()) + 1) / scale - half
        else:
            far = half - Fraction(int(differs.min())) / scale
        reach = max(reach, -int(-far // 1))
    return reach


def _fits(network: nn.Module, channels: int, align: int, margin: int) -> bool:
    side = max(margin, align)
    strip = _strip(network, channels, align, 2 * side, 9)
    whole = network(strip)
    return bool((run_in_tiles(network, strip, side, margin) - whole).abs().max() <= _ROUNDING * whole.abs().max())
