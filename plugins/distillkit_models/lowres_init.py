"""The first weights of a low-resolution codec: a colour transform, cosines of 8x8 pixels, and sums of 2x2 of these.

Both transforms are orthonormal, apart from the step of the quantiser, and the synthesis is the transpose of the
analysis: a fresh codec is a weak JPEG rather than noise, and learns from there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .lowres_net import LowRes

# Of the quantiser on orthonormal coefficients of an image in [0, 1]: where lmbda is .013 and all of them are coded,
# the best step is sqrt(36 / (.013 * 2 ln 2)) = 45 levels of 255.
STEP = 45 / 255
# Brightness and the two differences of colours: a wave of colour is worth keeping where one of brightness as many times
# as fine would be.
COLOUR_RANKS = (1.0, 4.0, 5.0)
FIRST_SCALE = 0.5  #: of the latent, in steps


@torch.no_grad()
def start_as_cosine_transform(codec: LowRes) -> None:
    """Set the linear layers of both transforms, in place; blocks between them are the identity when built."""
    first, *_, last = _convolutions(codec.g_a)
    early, *_, late = _convolutions(codec.g_s)
    width, latent = first.out_channels, last.out_channels
    cosines, frequencies = _cosines()
    order = frequencies.argsort(stable=True)[:width]
    basis, frequencies = cosines[order], frequencies[order]
    count = len(order)  # the teacher may have more channels than there are pixels in a patch
    first.weight[:count] = basis[:, :, None, None]
    first.bias[:count] = -0.5 * basis.sum(1)  # type: ignore[index]
    late.weight.mul_(0.1)[:, :count] = basis.t()[:, :, None, None]
    late.bias.fill_(0.5)  # type: ignore[union-attr]

    sums, shifts = _sums_of_four()
    frequencies = (frequencies[:, None] * shifts).flatten()
    chosen = frequencies.argsort(stable=True)[:latent]
    last.weight.mul_(0.1)
    last.bias.zero_()  # type: ignore[union-attr]
    early.weight.mul_(0.1)
    early.bias.zero_()  # type: ignore[union-attr]
    for row, index in enumerate(chosen.tolist()):
        channel, kind = divmod(index, 4)
        last.weight[row] = 0
        last.weight[row, channel, 1:, 1:] = sums[kind] / STEP
        early.weight[:, row] = 0
        early.weight[4 * channel : 4 * channel + 4, row, 0, 0] = sums[kind].flatten() * STEP
    scales_and_means = _convolutions(codec.latent_codec["y"].entropy_parameters)[-1]
    scales_and_means.bias[:latent] = FIRST_SCALE  # type: ignore[index]


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions outside of blocks."""
    layers = [layer for child in network.children() for layer in (child if type(child) is nn.Sequential else [child])]
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _cosines() -> tuple[Tensor, Tensor]:
    """Return orthonormal functions on patches, shape (192, 192), and for each its frequency, colour counted in."""
    place = torch.arange(8)
    waves = torch.cos(math.pi * (place + 0.5) * place[:, None] / 8)
    waves /= waves.norm(dim=1, keepdim=True)
    colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    colours /= colours.norm(dim=1, keepdim=True)
    # Row: colour and two frequencies; column: as a pixel unshuffle lays out the patch, colour, row, column.
    functions = torch.einsum("kc,uy,vx->kuvcyx", colours, waves, waves).reshape(192, 192)
    radius = (place[:, None].square() + place.square()).sqrt() + 0.5
    return functions, (torch.tensor(COLOUR_RANKS)[:, None, None] * radius).flatten()


def _sums_of_four() -> tuple[Tensor, Tensor]:
    """Return the orthonormal sums and differences of 2x2 values, shape (4, 2, 2), and how fine each is."""
    pair = torch.tensor([[1.0, 1], [1, -1]]) / math.sqrt(2)
    return torch.einsum("uy,vx->uvyx", pair, pair).reshape(4, 2, 2), torch.tensor([1.0, 1.5, 1.5, 1.8])
