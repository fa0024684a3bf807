"""Where a codec spends its bits: by channel of its latent, and by position in the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.images import read_image
from ..data.samples import Samples
from ..model.adapters import CodecAdapter

MAX_SIDE = 512


@final
@dataclass(frozen=True)
class BitsMap:
    """Where a codec spends its bits, as its entropy model charges them.

    Attributes:
        by_channel: bits per pixel of the image for each channel of the latent y, mean over pictures.
        rate_bpp: of all latents together, hyper-latents included, mean over pictures.
    """

    by_channel: list[float]
    rate_bpp: float


def load_crops(paths: Iterable[Path], stride: int, samples: Samples) -> Iterator[Tensor]:
    """Yield the middle of each picture, shape (1, C, H, W), at most 512 pixels per side; skip one that is too small."""
    for path in paths:
        picture = read_image(path, samples=samples)
        sides = [min(side, MAX_SIDE) // stride * stride for side in picture.shape[:2]]
        if min(sides) == 0:
            continue
        top, left = ((full - side) // 2 for full, side in zip(picture.shape[:2], sides, strict=True))
        yield _batch(picture[top : top + sides[0], left : left + sides[1]], samples)


@torch.no_grad()
def bits_by_channel(codec: CodecAdapter, crops: Iterable[Tensor]) -> BitsMap | None:
    """Return the bits of each channel of y, or None for a codec without a latent of that name."""
    channels, rates = [], []
    for images in crops:
        likelihoods = codec.forward(images.to(device_of(codec))).likelihoods
        if "y" not in likelihoods:
            return None
        pixels = images.shape[2] * images.shape[3]
        channels.append(-likelihoods["y"].double().log2().sum(dim=(0, 2, 3)) / pixels)
        rates.append(sum(float(-value.double().log2().sum()) for value in likelihoods.values()) / pixels)
    if not channels:
        return None
    return BitsMap(torch.stack(channels).mean(dim=0).tolist(), float(np.mean(rates)))


@torch.no_grad()
def bits_by_position(codec: CodecAdapter, picture: NDArray[Any]) -> NDArray[Any] | None:
    """Return the bits per pixel of the image at each position of y, shape (h, w), for a picture (H, W, C)."""
    height, width, _ = picture.shape
    margins = ((0, -height % codec.stride), (0, -width % codec.stride), (0, 0))
    likelihoods = codec.forward(
        _batch(np.pad(picture, margins, mode="edge"), codec.samples).to(device_of(codec))
    ).likelihoods
    if "y" not in likelihoods:
        return None
    bits = -likelihoods["y"][0].double().log2().sum(dim=0)
    side = (height + margins[0][1]) // bits.shape[0]
    return (bits[: -(-height // side), : -(-width // side)] / side**2).cpu().numpy()


def _batch(picture: NDArray[Any], samples: Samples) -> Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32, order="C")).div_(samples.peak)


def device_of(codec: CodecAdapter) -> torch.device:
    """Return the device that a codec's weights are on."""
    return next(codec.module.parameters()).device
