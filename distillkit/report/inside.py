"""What teacher and student do inside on held-out pictures: alignment of the taps, and the channels that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..evaluation.bits import device_of
from ..hooks.loader import Plugins
from ..model.file import TrainedModel
from ..recipe.recipe import Recipe
from ..taps.bank import TapShapes
from ..taps.pair import CodecPair, TeachingPair
from ..taps.points import Tap
from ..taps.provider import find_taps
from ..training.losses import LossTerm

MAX_POSITIONS = 4096  # of a picture at one tap: more do not change a fit of some hundred coefficients


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
        images = images.to(device_of(pair.student))
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
