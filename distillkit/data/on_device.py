"""Crops cut on the device, from pictures that lie there as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor

from .crops import CropDataset, share_of
from .images import image_size

_SHARE = 0.5  #: of a device's free memory, which pictures may take


@final
class PicturesOnDevice:
    """All pictures of a dataset on a device, one after the other.

    Args:
        dataset: whose pictures they are; those that it left out are left out here.
        device: where they are to lie.
    """

    def __init__(self, dataset: CropDataset, device: torch.device) -> None:
        self._dtype = torch.uint8 if dataset.samples.dtype == np.uint8 else torch.int32
        pictures = [dataset.picture(index) for index in range(len(dataset))]
        shapes = [None if picture is None else picture.shape for picture in pictures]
        starts = np.cumsum([0, *(0 if shape is None else int(np.prod(shape)) for shape in shapes)])
        self._places = [
            None if shape is None else (int(start), *shape[1:]) for start, shape in zip(starts, shapes, strict=False)
        ]
        self.values = torch.empty(int(starts[-1]), dtype=self._dtype, device=device)
        for picture, start in zip(pictures, starts, strict=False):
            if picture is not None:
                part = torch.from_numpy(np.ascontiguousarray(picture, np.uint8 if self._is_bytes else np.int32))
                self.values[start : start + part.numel()].copy_(part.view(-1))

    @property
    def _is_bytes(self) -> bool:
        return self._dtype == torch.uint8

    def crops(self, dataset: CropDataset, samples: range) -> Tensor:
        """Return crops, the same as `dataset[sample]` gives one by one: shape (B, C, crop, crop), up to the peak.

        Args:
            dataset: of the same pictures; of any crop and seed.
            samples: numbers of the crops.
        """
        device, crop = self.values.device, dataset.crop
        numbers = torch.empty(len(samples), 4, dtype=torch.int64, pin_memory=device.type == "cuda")
        rows = numbers.numpy()
        for row, sample in zip(rows, samples, strict=True):
            found, (top, left, mirrored) = dataset.place(sample, self._places.__getitem__, lambda found: found[1:])
            start, height, width = found
            row[:] = start + top * width + left, height * width, width, mirrored
        numbers = numbers.to(device, non_blocking=True)
        first, plane, width, mirrored = (column[:, None, None, None] for column in numbers.unbind(1))
        channels = torch.arange(dataset.samples.channels, device=device)[:, None, None]
        side = torch.arange(crop, device=device)
        columns = torch.where(mirrored > 0, crop - 1 - side, side)
        return self.values[first + channels * plane + side[:, None] * width + columns]

    def batches(
        self,
        dataset: CropDataset,
        batch_size: int,
        start_step: int,
        num_steps: int,
        rank: int = 0,
        num_ranks: int = 1,
        first_sample: int = 0,
    ) -> Iterator[Tensor]:
        """Yield what `distillkit.data.crops.batches` yields, cut here; see there for the arguments."""
        for step in range(start_step, start_step + num_steps):
            samples = share_of(step, 1, batch_size, rank, num_ranks, first_sample)
            yield self.crops(dataset, samples).to(torch.float32).div_(dataset.samples.peak)


def fits(dataset: CropDataset, free_bytes: int | None) -> bool:
    """Return whether a dataset's pictures may lie on a device with this much free memory; None stands for unknown.

    The pictures' sizes are read from their headers.
    """
    if free_bytes is None:
        return False
    size = dataset.samples.channels * (1 if dataset.samples.dtype == np.uint8 else 4)
    num_bytes = 0
    for path in dataset.paths:
        num_bytes += size * int(np.prod(image_size(path, dataset.samples)))
        if num_bytes > _SHARE * free_bytes:
            return False
    return True
