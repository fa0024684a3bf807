"""Pictures that several processes share, and crops that are cut on the device."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

import distillkit
from distillkit.data.cache import PictureCache, cache_of_machine
from distillkit.data.crops import CropDataset, batches
from distillkit.data.on_device import PicturesOnDevice, fits
from distillkit.data.samples import Samples
from distillkit.training.setup.data import default_workers

CROP = 32


@pytest.fixture
def dataset(photographs):
    return CropDataset(sorted(photographs.iterdir()), CROP, seed=3)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_dataset_for_another_process_is_small_and_gives_the_same_crops(dataset, temporary):
    expected = [dataset[sample] for sample in range(12)]
    sent = bytes(ForkingPickler.dumps(dataset))
    assert len(sent) < 5000 < sum(dataset.picture(index).nbytes for index in range(len(dataset)))
    other = pickle.loads(sent)
    assert len(list(temporary.iterdir())) == 1
    for each in (other, dataset, dataset.with_seed(3)):
        assert all(torch.equal(each[sample], crop) for sample, crop in enumerate(expected))
    dataset.close()
    assert not list(temporary.iterdir())
    assert torch.equal(other[0], expected[0])  # who has mapped the file keeps it


@pytest.mark.slow
def test_workers_that_are_started_afresh(dataset, temporary, monkeypatch):
    expected = list(batches(dataset, 2, 0, 4))
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: _spawn)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        found = list(batches(dataset, 2, 0, 4, num_workers=2))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


_spawn = multiprocessing.get_context("spawn")


def test_one_process_of_a_run_decodes_for_all(dataset, temporary):
    def make():
        made.append(1)
        return PictureCache([np.arange(12, dtype=np.uint16).reshape(1, 3, 4), None])

    made = []
    caches = [cache_of_machine(["run", 1], make) for _ in range(3)]
    assert made == [1]
    for cache in caches:
        assert np.array_equal(cache[0], np.arange(12, dtype=np.uint16).reshape(1, 3, 4))
        assert cache[1] is None
    cache_of_machine(["run", 2], make)
    assert made == [1, 1]
    for cache in caches[1:]:
        cache.close()  # of those that have not made it
    assert any(path.suffix == ".json" for path in temporary.iterdir())
    caches[0].close()
    del caches
    assert np.array_equal(cache[0].ravel(), np.arange(12))


@pytest.mark.parametrize("kind", ["rgb", "grey16"])
def test_crops_on_the_device_are_those_of_the_cpu(dataset, kind, tmp_path):
    if kind == "grey16":
        generator = np.random.default_rng(0)
        for index, (height, width) in enumerate([(40, 70), (64, 33), (50, 50)]):
            np.save(tmp_path / f"{index}.npy", generator.integers(0, 60000, (height, width), np.uint16))
        dataset = CropDataset(sorted(tmp_path.iterdir()), CROP, seed=1, samples=Samples(1, 16))
    pictures = PicturesOnDevice(dataset, torch.device("cpu"))
    for each in (dataset, dataset.with_seed(9), dataset.with_crop(16)):
        expected = torch.stack([each[sample] for sample in range(5, 25, 2)])
        assert torch.equal(pictures.crops(each, range(5, 25, 2)), expected)
        for rank in range(2):
            assert all(
                torch.equal(a, b)
                for a, b in zip(
                    pictures.batches(each, 4, 3, 5, rank, 2, 7),
                    batches(each, 4, 3, 5, 0, rank, 2, first_sample=7),
                    strict=True,
                )
            )


def test_damaged_pictures_are_passed_over_there_too(photographs, tmp_path):
    for path in photographs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = sorted(tmp_path.iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:-3000])
    dataset = CropDataset(sorted(tmp_path.iterdir()), CROP, seed=3, skip_bad=True)
    pictures = PicturesOnDevice(dataset, torch.device("cpu"))
    assert torch.equal(pictures.crops(dataset, range(9)), torch.stack([dataset[sample] for sample in range(9)]))


def test_what_fits(dataset):
    num_bytes = sum(dataset.picture(index).nbytes for index in range(len(dataset)))
    assert fits(dataset, 2 * num_bytes)
    assert not fits(dataset, 2 * num_bytes - 2)
    assert not fits(dataset, None)


def test_a_gpu_has_workers_by_default(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert [default_workers(torch.device("cuda"), ranks) for ranks in (1, 4, 64)] == [8, 4, 1]
    assert default_workers(torch.device("cpu"), 1) == 0


def test_a_run_with_its_pictures_on_the_device_ends_the_same(recipe, photographs, tmp_path, plugins):
    data = {"train": Path(photographs), "crop": 64, "batch_size": 2}
    runs = {}
    for cache in ("memory", "device"):
        r = recipe(data={**data, "cache": cache}, num_steps=3, schedule={"name": "core.constant"})
        runs[cache] = distillkit.train(r, tmp_path / cache, plugins=plugins).read_bytes()
    assert runs["memory"] == runs["device"]
