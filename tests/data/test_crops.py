import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillkit.data.crops import CropDataset, batches
from distillkit.data.images import read_image
from distillkit.data.killed import killed_workers_reported
from distillkit.errors import DataError

CROP = 16


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    """Five pictures of different sizes whose every pixel is unlike any other."""
    made = []
    for index in range(5):
        height, width = 20 + 3 * index, 40 - 4 * index
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([np.full_like(rows, index), rows, columns], axis=2).astype(np.uint8)
        path = tmp_path / f"{index}.png"
        Image.fromarray(pixels).save(path)
        made.append(path)
    return made


def take(dataset: CropDataset, start: int, number: int, workers: int = 0, batch_size: int = 3) -> torch.Tensor:
    return torch.stack(list(batches(dataset, batch_size, start, number, workers)))


def test_a_crop_is_a_part_of_its_picture_or_its_mirror_image(paths):
    dataset = CropDataset(paths, CROP, seed=1)
    mirrored = 0
    for sample in range(100):
        crop = dataset[sample]
        assert crop.dtype == torch.uint8
        assert crop.shape == (3, CROP, CROP)
        assert crop.is_contiguous()
        index, top = int(crop[0, 0, 0]), int(crop[1, 0, 0])
        left = int(crop[2].min())
        part = read_image(paths[index])[top : top + CROP, left : left + CROP]
        if crop[2, 0, 0] > crop[2, 0, 1]:
            mirrored += 1
            part = part[:, ::-1]
        np.testing.assert_array_equal(crop.numpy().transpose(1, 2, 0), part)
    assert 30 < mirrored < 70


def test_every_place_occurs(paths):
    dataset = CropDataset(paths[:1], CROP, seed=0)  # 20x40 pixels: 5 tops, 25 lefts
    crops = [dataset[sample] for sample in range(600)]
    assert {int(crop[1, 0, 0]) for crop in crops} == set(range(5))
    assert {int(crop[2].min()) for crop in crops} == set(range(25))


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own(paths):
    dataset = CropDataset(paths, CROP, seed=7)
    orders = [[int(dataset[5 * epoch + place][0, 0, 0]) for place in range(5)] for epoch in range(8)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len({tuple(order) for order in orders}) > 4


def test_a_sample_depends_on_seed_and_number_alone(paths):
    first, second = CropDataset(paths, CROP, seed=3), CropDataset(paths, CROP, seed=3, cache_mib=0)
    forwards = [first[sample] for sample in range(40)]
    backwards = [second[sample] for sample in reversed(range(40))]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    other = CropDataset(paths, CROP, seed=4)
    assert any(not torch.equal(a, other[sample]) for sample, a in enumerate(forwards))


def test_known_crops_stay_what_they_are(paths):
    """Runs must be resumable under a later version: image, top and left of the first samples of seed 0."""
    dataset = CropDataset(paths, CROP, seed=0)
    crops = [dataset[sample] for sample in range(6)]
    places = [(int(crop[0, 0, 0]), int(crop[1, 0, 0]), int(crop[2].min())) for crop in crops]
    assert places == [(4, 0, 5), (2, 3, 2), (0, 3, 5), (1, 3, 17), (3, 8, 9), (0, 0, 11)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resuming_gives_the_batches_of_an_uninterrupted_run(paths, workers):
    whole = take(CropDataset(paths, CROP, seed=5), 0, 12)
    resumed = take(CropDataset(paths, CROP, seed=5), 7, 5, workers)
    assert torch.equal(resumed, whole[7:])


def test_batches_are_contiguous_floats(paths):
    dataset = CropDataset(paths, CROP, seed=5)
    (batch,) = batches(dataset, 4, start_step=2, num_steps=1)
    assert batch.dtype == torch.float32
    assert batch.shape == (4, 3, CROP, CROP)
    assert batch.is_contiguous(memory_format=torch.contiguous_format)
    assert batch.stride() == (3 * CROP * CROP, CROP * CROP, CROP, 1)
    assert torch.equal(batch, torch.stack([dataset[sample] for sample in range(8, 12)]).float() / 255)


def test_global_random_state_is_left_alone(paths):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(CropDataset(paths, CROP, seed=5), 0, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_cache_holds_what_fits(paths):
    sizes = [read_image(path).nbytes for path in paths]
    dataset = CropDataset(paths, CROP, seed=5, cache_mib=sum(sizes[:3]) / 2**20)
    for path in paths[:3]:
        path.unlink()
    seen = set()
    for sample in range(30):
        try:
            seen.add(int(dataset[sample][0, 0, 0]))
        except DataError as error:
            pytest.fail(f"decoded again: {error}")
    assert seen == {0, 1, 2, 3, 4}


def test_unusable_images_are_reported_at_once(paths):
    Image.open(paths[1]).convert("L").save(paths[1])
    with pytest.raises(DataError, match="got 2 that cannot be used"):
        CropDataset(paths, 21, seed=0)  # the first is 20 pixels high
    with pytest.raises(DataError, match="expected at least one, got none"):
        CropDataset([], CROP, seed=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_later_is_a_clear_error(paths, workers):
    dataset = CropDataset(paths, CROP, seed=0, cache_mib=0)
    paths[2].write_bytes(paths[2].read_bytes()[:-40])
    with pytest.raises(DataError) as error:
        take(dataset, 0, 2, workers)
    assert str(error.value).startswith(f"image {paths[2]}: expected a readable image, got ")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the signal in torch's own `__del__`
def test_a_process_that_is_killed_is_a_clear_error(paths):
    dataset = CropDataset(paths, CROP, seed=0, cache_mib=0)
    stream = batches(dataset, 2, 0, 10_000, num_workers=1)
    next(stream)

    @killed_workers_reported()  # the signal may arrive at any line
    def kill_and_go_on():
        for child in multiprocessing.active_children():
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # its signal arrives now, not in another test
        for _ in stream:
            pass

    with pytest.raises(DataError, match=r"one was killed, perhaps for lack of memory.*data\.num_workers"):
        kill_and_go_on()


def test_other_kinds_by_choice(tmp_path):
    for name, value in (("a.png", 300), ("b.png", 25700)):
        Image.fromarray(np.full((CROP, CROP), value, np.uint16)).save(tmp_path / name)
    files = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="data.convert = true to convert other kinds"):
        CropDataset(files, CROP, seed=0)
    dataset = CropDataset(files, CROP, seed=0, convert=True)
    assert sorted(int(dataset[sample].max()) for sample in (0, 1)) == [1, 100]
