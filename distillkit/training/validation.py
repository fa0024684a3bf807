"""Validation in the run: the cost on held-out pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..data.crops import CropDataset
from ..data.images import survey
from ..data.samples import Samples
from ..data.shards import list_training_images
from ..errors import RecipeError
from ..model.adapters import CodecAdapter
from ..model.conditioned import FIXED_POINTS, at_quality
from ..model.lmbda import LmbdaRange
from ..recipe.recipe import Recipe
from ..recipe.settings import ValidationSettings
from ..taps.points import eval_mode
from .distributed import Ranks
from .losses import psnr_from_mse
from .objectives.objective import Objective, rate_distortion

_SEED = 2**33  #: of the crops: the same ones in every run on the same pictures


@final
class Validation:
    """Measures a codec on the same crops of held-out pictures each time.

    They have twice the side of the training crops if every picture is large enough: what a codec learns at a crop's
    border alone, it may not do inside a picture. See docs/recipes.md, 'How large a crop'.

    One of many rates is measured at `FIXED_POINTS`, in turn from crop to crop, each at the lambda of its quality.
    """

    def __init__(
        self, settings: ValidationSettings, recipe: Recipe, objective: Objective, ranks: Ranks, samples: Samples
    ) -> None:
        """Read the pictures.

        Raises:
            DistillkitError: there are none, one cannot be used, or one is a training image.
        """
        self.settings, self._ranks, self._lmbda, self._objective = settings, ranks, recipe.lmbda, objective
        paths, _ = list_training_images(settings.data)
        both = {str(path) for path in paths} & {str(path) for path in list_training_images(recipe.data.train)[0]}
        if both:
            raise RecipeError(
                f"recipe validation.data: expected pictures that are held out, got {len(both)} of data.train "
                f"({min(both)}). Name another folder."
            )
        kind: dict[str, Any] = {"convert": recipe.data.convert, "samples": samples}
        scale = 1 if survey(paths, 2 * recipe.data.crop, **kind).problems else 2
        self._part = max(1, recipe.data.batch_size // (ranks.num * recipe.accumulate * scale**2))  # fits in memory
        self._crops = CropDataset(paths, scale * recipe.data.crop, _SEED, recipe.data.cache_mib, **kind)

    def due(self, step: int, num_steps: int) -> bool:
        """Return whether to measure once `step` steps of `num_steps` are done."""
        return step % self.settings.every == 0 or step == num_steps

    @torch.no_grad()
    def measure(self, codec: CodecAdapter) -> dict[str, float]:
        """Return `rate_bpp`, `psnr_db` (and what the run trains for) and `rd_cost`, estimated in eval mode."""
        ranks, num_crops = self._ranks, self.settings.crops
        cuda = [ranks.device] if ranks.device.type == "cuda" else []
        sums = torch.zeros(4, dtype=torch.float64)
        with torch.random.fork_rng(cuda), eval_mode(codec.module):
            mine = range(ranks.rank, num_crops, ranks.num)
            for start in range(0, len(mine), self._part):
                samples = mine[start : start + self._part]
                images = self._batch(samples).to(ranks.device)
                quality, lmbda = None, self._lmbda
                if isinstance(lmbda, LmbdaRange):
                    quality = images.new_tensor([FIXED_POINTS[sample % len(FIXED_POINTS)] for sample in samples])
                    lmbda = lmbda.at(quality)
                output = at_quality(codec, quality).forward(images)
                measured = rate_distortion(output, images, lmbda, self._objective)
                values = (measured.rate_bpp, measured.mse, measured.distortion, measured.cost)
                sums += len(images) * torch.stack([value.double().cpu() for value in values])
        rate, mse, distortion, cost = (
            ranks.mean(sums.to(ranks.device) if ranks.num > 1 else sums) * ranks.num / num_crops
        ).tolist()
        quality = {"psnr_db": psnr_from_mse(mse)}
        if self._objective.metric == "ms-ssim":
            quality["ms_ssim_db"] = -10 * math.log10(max(distortion, 1e-12))
        return {"rate_bpp": rate, **quality, "rd_cost": cost}

    def _batch(self, samples: Sequence[int]) -> Tensor:
        return torch.stack([self._crops[sample] for sample in samples]).float().div_(self._crops.samples.peak)
