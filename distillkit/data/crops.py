"""Training crops: the seed and n alone decide which crop sample n is, so that a run can be resumed anywhere."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import DataError
from .cache import PictureCache, cache_of_machine
from .content import ImageFile
from .images import check_images, read_image
from .killed import killed_workers_reported
from .samples import RGB, Samples

_CROP_STREAM, _ORDER_STREAM, _SHARD_STREAM, _QUALITY_STREAM = 0, 1, 2, 3
_GOLDEN = 0x9E3779B97F4A7C15  # of 2**64, the golden section
_NUM_MIXED = 8  #: shards of which the images of an epoch are mixed at a time
_LOG = logging.getLogger("distillkit")
_MIB = 1 << 20
T = TypeVar("T")

#: Added to a run's seed for crops on which something is measured before or between training.
CALIBRATION_SEED = 2**32


@final
class CropDataset(Dataset[Tensor]):
    """Random square crops, half of them mirrored left to right.

    Sample n, counted from the start of the run and not bounded by `len`, is determined by `(seed, n)`: every epoch of
    `len` samples visits each image once in a new order, and the crop's place comes from a counter-based generator
    (Philox), so that nothing has to be replayed to reach sample n. Its raw 64-bit words are used, because numpy keeps
    those the same across versions, unlike `permutation` and `integers`.

    Images in shards are visited a few shards at a time, which are read from then on out of the system's own cache.

    Args:
        paths: images of at least `crop` pixels per side; paths, or images in shards.
        crop: side of the crops in pixels.
        seed: in [0, 2^64).
        cache_mib: decoded images are held in memory, in the order of `paths`, while they fit in this many MiB; the
            others are decoded for every crop. Worker processes share that memory.
        skip_bad: an image that turns out to be damaged when it is decoded is left out, and the next one of the epoch is
            taken instead; `problems` reports it.
        convert: take other kinds of picture too, see `read_image`.
        num_crops: sample n is the same as sample n + num_crops, if given.
        samples: of the images.
        shared_by: names the run whose processes on this machine decode the images once for all of them; None for one
            process.

    Raises:
        DataError: there are no images, or some cannot be used.
    """

    def __init__(
        self,
        paths: Sequence[ImageFile],
        crop: int,
        seed: int,
        cache_mib: float = 1024,
        skip_bad: bool = False,
        convert: bool = False,
        num_crops: int | None = None,
        samples: Samples = RGB,
        shared_by: str | None = None,
    ) -> None:
        if not paths:
            raise DataError("training images: expected at least one, got none; check the data folder of the recipe.")
        check_images(paths, min_side=crop, convert=convert, samples=samples)
        self.paths = list(paths)
        self.crop = crop
        self.seed = seed
        self.skip_bad = skip_bad
        self.convert = convert
        self.num_crops = num_crops
        self.samples = samples
        self.problems: dict[int, str] = {}  # of images left out by this process, by their place in `paths`
        self._cached = self._cache(cache_mib) if shared_by is None else self._cache_of_machine(cache_mib, shared_by)
        shards = [str(getattr(path, "shard", "")) for path in self.paths]
        self._shards = np.unique(shards, return_inverse=True)[1]
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of images, which is the number of samples in an epoch."""
        return len(self.paths)

    def __getitem__(self, sample: int) -> Tensor:
        """Return crop number `sample` of the run: uint8 or int32, shape (C, crop, crop), contiguous, up to the peak."""
        picture, (top, left, mirrored) = self.place(sample, self.picture, lambda picture: picture.shape[1:])
        values = picture[:, top : top + self.crop, left : left + self.crop]
        cut = torch.from_numpy(values if values.dtype == np.uint8 else values.astype(np.int32))
        # A fresh contiguous tensor either way: channels-last batches corrupt the heap in oneDNN (issue 6035).
        return cut.flip(2).contiguous() if mirrored else cut.clone(memory_format=torch.contiguous_format)

    def picture(self, index: int) -> NDArray[Any] | None:
        """Return an image by its place in `paths`, shape (C, H, W); None if it is damaged and left out."""
        return self._cached[index] if index < len(self._cached) else self._decoded(index)

    def place(
        self, sample: int, look_up: Callable[[int], T | None], size: Callable[[T], tuple[int, ...]]
    ) -> tuple[T, tuple[int, int, bool]]:
        """Return where crop number `sample` of the run lies.

        Args:
            sample: its number.
            look_up: returns an image by its place in `paths`; None if it is left out, and the next one stands in.
            size: returns height and width of what `look_up` returned.

        Returns:
            What was looked up, and top, left and whether the crop is mirrored.
        """
        sample = sample % self.num_crops if self.num_crops else sample
        epoch, place = divmod(sample, len(self))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        for shift in range(len(self)):
            found = look_up(int(self._order[(place + shift) % len(self)]))
            if found is not None:
                break
        else:
            raise DataError(f"training images: every one is damaged. The first: {next(iter(self.problems.values()))}")
        height, width = size(found)
        top, left, mirror = (int(word) for word in self._random_words(_CROP_STREAM, sample, 3))
        return found, (top % (height - self.crop + 1), left % (width - self.crop + 1), bool(mirror & 1))

    def qualities(self, samples: Sequence[int]) -> Tensor:
        """Return the quality of each of these crops, for a codec of many rates: in [0, 1), shape (B,).

        Neighbouring crops have qualities far apart, by steps of the golden ratio, so that every batch covers the range.
        Like the crop, a quality follows from the seed and the sample's number alone.
        """
        start = int(self._random_words(_QUALITY_STREAM, 0, 1)[0])
        numbers = [sample % self.num_crops if self.num_crops else sample for sample in samples]
        words = [(start + number * _GOLDEN) % 2**64 for number in numbers]
        qualities = torch.empty(len(words))  # filled where it lies: no tensor is made of Python's numbers
        qualities.numpy()[:] = [(word >> 11) * 2.0**-53 for word in words]
        return qualities

    def with_seed(self, seed: int) -> CropDataset:
        """Return other crops of the same images, which are not decoded again."""
        other = copy.copy(self)
        other.seed, other._epoch = seed, -1
        return other

    def with_crop(self, crop: int) -> CropDataset:
        """Return crops of another size of the same images, which are not decoded again.

        Raises:
            DataError: an image is smaller than that.
        """
        if crop == self.crop:
            return self
        check_images(self.paths, min_side=crop, convert=self.convert, samples=self.samples)
        other = copy.copy(self)
        other.crop, other._epoch = crop, -1
        return other

    def _cache(self, cache_mib: float) -> PictureCache:
        """Decode the images while they fit."""
        pictures: list[NDArray[Any] | None] = []
        num_bytes = 0
        for index in range(len(self.paths)):
            picture = self._decoded(index)
            num_bytes += 0 if picture is None else picture.nbytes
            if num_bytes > cache_mib * _MIB:
                break
            pictures.append(None if picture is None else np.ascontiguousarray(picture))
        return PictureCache(pictures)

    def _cache_of_machine(self, cache_mib: float, shared_by: str) -> PictureCache:
        files = sorted({str(getattr(path, "shard", path)) for path in self.paths})
        about = [(name, os.stat(name).st_mtime_ns, os.stat(name).st_size) for name in files]
        key = [shared_by, cache_mib, self.convert, self.samples, *map(str, self.paths), *about]
        return cache_of_machine(key, lambda: self._cache(cache_mib))

    def close(self) -> None:
        """Remove what was written for other processes."""
        self._cached.close()

    def _decoded(self, index: int) -> NDArray[Any] | None:
        """Return an image, shape (C, H, W), or None if it is damaged and is left out."""
        try:
            options: dict[str, Any] = {"convert": self.convert, "samples": self.samples}
            return read_image(self.paths[index], min_side=self.crop, **options).transpose(2, 0, 1)
        except DataError as error:
            if not self.skip_bad:
                raise
            self.problems[index] = str(error)
            return None

    def _shuffled(self, epoch: int) -> NDArray[Any]:
        """Return the order of an epoch: shards in groups of a few, and within a group every image anywhere."""
        words = self._random_words(_ORDER_STREAM, epoch, len(self))
        num_shards = int(self._shards.max()) + 1
        if num_shards <= _NUM_MIXED:
            return np.argsort(words, kind="stable")
        place = np.argsort(np.argsort(self._random_words(_SHARD_STREAM, epoch, num_shards)))
        return np.lexsort((words, place[self._shards] // _NUM_MIXED))

    def _random_words(self, stream: int, number: int, num_words: int) -> NDArray[Any]:
        key = np.array([self.seed, number], dtype=np.uint64)
        return np.random.Philox(key=key, counter=[0, 0, 0, stream]).random_raw(num_words)


def batches(
    dataset: CropDataset,
    batch_size: int,
    start_step: int,
    num_steps: int,
    num_workers: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
    device: torch.device | str = "cpu",
    first_sample: int = 0,
) -> Iterator[Tensor]:
    """Yield the batches of steps `start_step` to `start_step + num_steps - 1`, or one rank's share of them.

    Step k is made of the samples from `first_sample + k * batch_size` on, whatever `start_step`, `num_workers` and
    `num_ranks` are, so that a resumed run sees the batches of an uninterrupted one. No global random state is read or
    changed.

    Args:
        dataset: where the crops come from.
        batch_size: crops in a batch, over all ranks; a multiple of `num_ranks`.
        start_step: first step, counted from the start of the run.
        num_steps: number of batches.
        num_workers: processes that read and cut; 0 does it in this one.
        rank: of the R processes that share each batch, the one that takes every R-th sample from its `rank`-th on.
        num_ranks: R.
        device: where the batches are wanted. Pixels travel as bytes, from pinned memory, and nothing waits for them.
        first_sample: of step 0.

    Yields:
        float32, shape (batch_size / num_ranks, C, crop, crop), contiguous, range [0, 1].

    Raises:
        DataError: an image cannot be decoded.
    """
    samples = share_of(start_step, num_steps, batch_size, rank, num_ranks, first_sample)
    loader = DataLoader(
        dataset,
        batch_size=batch_size // num_ranks,
        sampler=samples,
        num_workers=num_workers,
        collate_fn=_Collate(dataset),
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # otherwise the loader draws its workers' seeds from torch's global generator
    )
    said = set(dataset.problems)
    try:
        with killed_workers_reported(ConnectionError, EOFError, FileNotFoundError):  # while it passed on a batch
            for batch, problems in loader:
                for index in problems.keys() - said:
                    _LOG.warning("left out: %s", problems[index])
                said |= problems.keys()
                dataset.problems.update(problems)
                yield batch.to(device, non_blocking=True).to(torch.float32).div_(dataset.samples.peak)
    except DataError as error:
        # A worker's error arrives as the text of its traceback, which ends with the name of the error and its message.
        raise DataError(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from error


def share_of(
    start_step: int, num_steps: int, batch_size: int, rank: int = 0, num_ranks: int = 1, first_sample: int = 0
) -> range:
    """Return the numbers of the samples of some steps that one rank takes, see `batches`."""
    first, last = (first_sample + step * batch_size for step in (start_step, start_step + num_steps))
    return range(first + rank, last, num_ranks)


class _Collate:
    """Makes a batch, and reports the images that its process has left out so far."""

    def __init__(self, dataset: CropDataset) -> None:
        self.dataset = dataset

    def __call__(self, crops: list[Tensor]) -> tuple[Tensor, dict[int, str]]:
        return default_collate(crops), dict(self.dataset.problems)
