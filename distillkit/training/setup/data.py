"""The training crops of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from ...data.crops import CropDataset, batches
from ...data.images import survey
from ...data.on_device import PicturesOnDevice, fits
from ...data.samples import Samples
from ...data.shards import list_training_images
from ...recipe.recipe import Recipe
from ...recipe.settings import DataSettings
from ..distributed import Ranks, launch

_MOST_WORKERS = 8


def training_crops(recipe: Recipe, largest_crop: int, samples: Samples) -> tuple[CropDataset, list[str]]:
    """Return the training crops, and notes on the images: which are left out, how many are converted.

    Args:
        recipe: of the run.
        largest_crop: of its phases, in pixels; images that are smaller are left out if bad ones are.
        samples: what the codec takes.
    """
    settings = recipe.data
    paths, left_out = list_training_images(settings.train)
    notes = [left_out] if left_out else []
    skip_bad = settings.bad_images == "skip"
    if skip_bad or settings.convert:
        problems, converted = survey(paths, largest_crop, convert=settings.convert, samples=samples)
        if converted:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in converted.most_common())
            notes.append(f"converted to {samples}: {converted.total()} of {len(paths)} pictures: {kinds}")
        if skip_bad:
            notes += [f"left out: {problem}" for problem in problems]
            bad = {problem.path for problem in problems}
            paths = sorted(path for path in paths if path not in bad)
    kind = (skip_bad, settings.convert, settings.num_crops, samples)
    shared_by = None if skip_bad else launch()  # what a process leaves out while it decodes, it reports
    dataset = CropDataset(paths, settings.crop, recipe.seed, settings.cache_mib, *kind, shared_by)
    return dataset, notes + [f"left out: {problem}" for problem in dataset.problems.values()]


def default_workers(device: torch.device, num_ranks: int) -> int:
    """Return how many processes cut the crops where this many ranks run on this machine."""
    return max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // num_ranks)) if device.type == "cuda" else 0


@final
class Crops:
    """Where the crops of a run are cut: on its device, in other processes, or in this one.

    Attributes:
        on_device: the pictures, where they lie on the device.
        num_workers: processes that cut, otherwise.

    Args:
        dataset: of the recipe; those of its phases have other crops of the same pictures.
        settings: of the recipe.
        ranks: the processes of the run.
        notes: gets a line of what was chosen.
    """

    def __init__(self, dataset: CropDataset, settings: DataSettings, ranks: Ranks, notes: list[str]) -> None:
        device = ranks.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        by_itself = settings.cache == "auto" and free is not None and fits(dataset, free)
        self._ranks = ranks
        self.on_device: PicturesOnDevice | None = None
        if settings.cache == "device" or by_itself:
            self.on_device = PicturesOnDevice(dataset, device)
            size = f"{self.on_device.values.nbytes / 2**20:.0f} MiB"
            notes.append(f"data.cache {settings.cache}: {size} of pictures lie on {device}, where crops are cut")
        self.num_workers = settings.num_workers
        if settings.num_workers is None:
            self.num_workers = default_workers(device, int(os.environ.get("LOCAL_WORLD_SIZE", ranks.num)))

    def batches(
        self, dataset: CropDataset, batch_size: int, start_step: int, num_steps: int, first_sample: int
    ) -> Iterator[Tensor]:
        """Yield this process's share of batches, see `distillkit.data.crops.batches`."""
        ranks, steps = self._ranks, (dataset, batch_size, start_step, num_steps)
        if self.on_device is not None:
            return self.on_device.batches(*steps, ranks.rank, ranks.num, first_sample)
        return batches(*steps, self.num_workers or 0, ranks.rank, ranks.num, ranks.device, first_sample)
