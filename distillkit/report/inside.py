"""What teacher and student do inside on held-out pictures: alignment of the taps, bits by channel and position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.images import read_image
from ..data.samples import Samples
from ..hooks.loader import Plugins
from ..model.adapters import CodecAdapter
from ..model.file import TrainedModel
from ..recipe.recipe import Recipe
from ..taps.bank import TapShapes
from ..taps.pair import CodecPair, TeachingPair
from ..taps.points import Tap
from ..taps.provider import find_taps
from ..training.losses import LossTerm

MAX_SIDE = 512
MAX_POSITIONS = 4096  # of a picture at one tap: more do not change a fit of some hundred coefficients


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
        likelihoods = codec.forward(images.to(_device(codec))).likelihoods
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
        _batch(np.pad(picture, margins, mode="edge"), codec.samples).to(_device(codec))
    ).likelihoods
    if "y" not in likelihoods:
        return None
    bits = -likelihoods["y"][0].double().log2().sum(dim=0)
    side = (height + margins[0][1]) // bits.shape[0]
    return (bits[: -(-height // side), : -(-width // side)] / side**2).cpu().numpy()


def bind(
    teacher: TrainedModel, student: TrainedModel, recipe: Recipe, plugins: Plugins
) -> tuple[TeachingPair, TapShapes]:
    """Return teacher and student with the taps that both have, and the taps' shapes for the recipe's crops.

    Raises:
        DistillkitError: the two do not fit.
    """
    size = (recipe.data.crop, recipe.data.crop)
    provider_class, config = plugins.configure("taps", recipe.taps.name, recipe.taps.options, "recipe taps")
    provider = provider_class(config)

    def taps(model: TrainedModel) -> Mapping[str, str | Tap]:
        pair_class, options = plugins.configure("pair", model.pair, model.options, "recipe pair")
        pair: CodecPair = pair_class(options)
        named = pair.teacher_taps() if model.part == "teacher" else pair.student_taps()
        return named or find_taps(model.codec, provider, size)

    pair = TeachingPair(teacher.codec, student.codec, (taps(teacher), taps(student)))
    return pair, pair.probe(size).shapes


@final
class _Sums:
    """What a least-squares fit of y by x needs, and what its error is made of, without keeping the samples."""

    def __init__(self) -> None:
        self.num, self.xx, self.xy = 0, torch.zeros(()), torch.zeros(())
        self.y, self.yy = torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take samples, shapes (N, C) and (N, D), float64; the last column of x is 1."""
        self.num += len(x)
        self.xx, self.xy = self.xx + x.T @ x, self.xy + x.T @ y
        self.y, self.yy = self.y + y.sum(dim=0), self.yy + y.square().sum()

    def fit(self) -> Tensor:
        """Return the weights, shape (C, D), of the least squared error."""
        ridge = 1e-6 * self.xx.diagonal().mean() * torch.eye(len(self.xx), dtype=self.xx.dtype)
        return torch.linalg.solve(self.xx + ridge, self.xy)

    def explained(self, weights: Tensor) -> float:
        """Return 1 - sum |y - x W|^2 / sum |y - mean y|^2."""
        error = self.yy - 2 * (weights * self.xy).sum() + (weights * (self.xx @ weights)).sum()
        total = (self.yy - self.y.square().sum() / self.num).clamp_min(1e-12)
        return float(1 - error / total)


@torch.no_grad()
def explained_variance(
    pair: TeachingPair, roles: Sequence[str], crops: Iterable[Tensor]
) -> tuple[dict[str, float], int]:
    """Return for each tap how much of the teacher's variance a 1x1 convolution of the student's features explains.

    The convolution is fitted by least squares on every other picture and judged on the rest: 1 means that the student's
    features determine the teacher's, 0 that they give no more than their mean.

    Args:
        pair: teacher and student.
        roles: taps that both have.
        crops: pictures, each of shape (1, C, H, W).

    Returns:
        Tap -> share, empty for fewer than two pictures, and the number of pictures.
    """
    generator = torch.Generator().manual_seed(0)
    fitted, judged = ({role: _Sums() for role in roles} for _ in range(2))
    num_images = 0
    for images in crops:
        images = images.to(_device(pair.student))
        _, taps = pair.run_student(images, pair.run_teacher(images, roles))
        for role, features in taps.items():
            x, y = (side[0].flatten(1).double().T.cpu() for side in features)
            chosen = torch.randperm(len(x), generator=generator)[:MAX_POSITIONS]
            x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
            (judged if num_images % 2 else fitted)[role].add(x[chosen], y[chosen])
        num_images += 1
    if num_images < 2:
        return {}, num_images
    return {role: judged[role].explained(fitted[role].fit()) for role in roles}, num_images


def kept_channels(
    recipe: Recipe, shapes: TapShapes, records: Mapping[str, Mapping[str, Any]], plugins: Plugins
) -> dict[str, list[int]]:
    """Return loss term -> the teacher's latent channels that it kept, for terms that say so."""
    kept = {}
    for name, record in records.items():
        if name not in recipe.losses:
            continue
        try:
            term_class, config = plugins.configure_loss(name, recipe.losses[name])
            term: LossTerm = term_class(config, shapes)
            term.load_calibration(record)
        except Exception:  # damaged, or of another version of the plugin: the ranking is shown alone
            continue
        if (channels := term.kept_channels) is not None:
            kept[name] = channels
    return kept


def _batch(picture: NDArray[Any], samples: Samples) -> Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32, order="C")).div_(samples.peak)


def _device(codec: CodecAdapter) -> torch.device:
    return next(codec.module.parameters()).device
