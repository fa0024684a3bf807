"""Images in tar shards: packed, read, crossed with WebDataset's own tools, and trained on."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import distillkit
from distillkit.data.crops import CropDataset, batches
from distillkit.data.images import read_image, survey
from distillkit.data.samples import Samples
from distillkit.data.shards import PackedImage, list_training_images, pack
from distillkit.data.stored import write_picture
from distillkit.errors import DataError
from tests.data.test_crops import CROP, paths, take  # noqa: F401 - a fixture
from tests.test_samples import waves
from tests.training.test_training import same, weights


@pytest.fixture
def packed(paths, tmp_path):  # noqa: F811
    source = tmp_path / "photos"
    source.mkdir()
    for path in paths:
        path.rename(source / path.name)
    Image.new("L", (40, 40)).save(source / "grey.png")
    (source / "broken.png").write_bytes((source / "0.png").read_bytes()[:-40])
    return source, pack(source, tmp_path / "shards", num_workers=1), tmp_path / "shards"


def test_pack_keeps_every_byte_and_reports_each_bad_file_once(packed):
    source, done, out = packed
    assert (done.num_images, done.num_shards) == (5, 1)
    assert sorted(problem.split(":")[0] for problem in done.problems) == [
        f"image {source / 'broken.png'}",
        f"image {source / 'grey.png'}",
    ]
    images = list_training_images(out).images
    assert sorted(image.name for image in images) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    for image in images:
        assert image.open("rb").read() == (source / image.name).read_bytes()
        assert np.array_equal(read_image(image), read_image(source / image.name))
        assert image.verified_size == read_image(image).shape[1::-1]
    assert not list(out.glob("*.partial"))
    with tarfile.open(out / "shard-000000.tar") as tar:
        assert len(tar.getnames()) == 5


@pytest.mark.parametrize(
    ("samples", "suffixes"),
    [
        (Samples(1, 8), [".png", ".tif", ".npy"]),
        (Samples(1, 12), [".png", ".tif", ".npy"]),
        (Samples(4, 12), [".tif", ".npy"]),
        (Samples(3, 16), [".tif", ".npy"]),
    ],
    ids=str,
)
def test_other_samples_are_packed_as_they_are(samples, suffixes, tmp_path):
    source = tmp_path / "scenes"
    source.mkdir()
    for number, suffix in enumerate(suffixes):
        write_picture(source / f"{number}{suffix}", waves(samples, number, 40, 50), suffix)
    Image.new("RGB", (40, 40)).save(source / "colour.png")
    if samples.bits == 12:
        write_picture(source / "large.npy", waves(Samples(samples.channels, 13), 0, 40, 50), ".npy")
    done = pack(source, tmp_path / "shards", num_workers=1, samples=samples)
    assert sorted(problem.split(": expected")[0] for problem in done.problems) == [
        f"image {source / name}" for name in ["colour.png", *["large.npy"] * (samples.bits == 12)]
    ]
    images = sorted(list_training_images(tmp_path / "shards").images, key=lambda image: image.name)
    assert [image.name for image in images] == [f"{number}{suffix}" for number, suffix in enumerate(suffixes)]
    assert not survey(images, 40, samples=samples).problems
    assert len(survey(images, 41, samples=samples).problems) == len(images)
    assert len(survey(images).problems) == len(images)  # of a run with a codec of 8-bit RGB
    for number, image in enumerate(images):
        assert np.array_equal(read_image(image, samples=samples), waves(samples, number, 40, 50))
    packed, loose = (
        CropDataset(each, CROP, seed=0, samples=samples) for each in (images, [source / image.name for image in images])
    )
    assert torch.equal(take(packed, 0, 3), take(loose, 0, 3))


def test_shards_are_closed_at_their_size(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        noise = generator.integers(0, 256, (400, 500, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.bmp")
    done = pack(tmp_path / "photos", tmp_path / "shards", shard_mib=1, num_workers=1)
    assert done.num_shards == 2
    assert {image.shard.name for image in list_training_images(tmp_path / "shards").images} == {
        "shard-000000.tar",
        "shard-000001.tar",
    }


def test_without_the_index_the_shards_are_scanned(packed):
    _, _, out = packed
    indexed = list_training_images(out).images
    (out / "index.json").unlink()
    scanned = list_training_images(out).images
    assert [(i.offset, i.num_bytes) for i in scanned] == [(i.offset, i.num_bytes) for i in indexed]


def test_crops_are_those_of_the_same_images_in_the_same_order(packed):
    source, _, out = packed
    images = list_training_images(out).images
    as_files = CropDataset([source / image.name for image in images], CROP, seed=3, cache_mib=0)
    as_shards = CropDataset(images, CROP, seed=3, cache_mib=0)
    assert torch.equal(take(as_files, 2, 5), take(as_shards, 2, 5, workers=2))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves a file to the collector
def test_webdataset_reads_our_shards_and_we_read_its(packed, tmp_path):
    wds = pytest.importorskip("webdataset")
    source, _, out = packed
    samples = list(wds.WebDataset(str(out / "shard-000000.tar"), shardshuffle=False).decode("rgb8"))
    ours = list_training_images(out).images
    assert len(samples) == len(ours) == 5
    for sample, image in zip(samples, ours, strict=True):
        assert np.array_equal(sample["png"], read_image(image))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with wds.TarWriter(str(theirs / "a.tar")) as writer:
        for number in range(3):
            picture = (source / f"{number}.png").read_bytes()
            writer.write({"__key__": f"{number:03d}", "png": picture, "json": {"n": number}})
    images = list_training_images(theirs).images
    assert [image.name for image in images] == ["000.png", "001.png", "002.png"]
    assert np.array_equal(read_image(images[1]), read_image(source / "1.png"))


def test_an_epoch_mixes_a_few_shards_at_a_time(tmp_path):
    files = [PackedImage(tmp_path / f"{n // 10:02d}.tar", str(n), 0, 1, (64, 64)) for n in range(400)]
    dataset = CropDataset.__new__(CropDataset)
    dataset.seed, dataset.paths = 1, files
    dataset._shards = np.array([n // 10 for n in range(400)])
    first, second = dataset._shuffled(0), dataset._shuffled(1)
    assert sorted(first) == sorted(second) == list(range(400))
    for order in (first, second):
        groups = [{n // 10 for n in order[80 * k : 80 * k + 80].tolist()} for k in range(5)]
        assert [len(group) for group in groups] == [8] * 5
        assert len({n // 10 for n in order[:20].tolist()}) > 4
    assert {n // 10 for n in first[:80].tolist()} != {n // 10 for n in second[:80].tolist()}


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ranks_and_workers_share_the_samples_without_repeats(packed, num_ranks):
    dataset = CropDataset(list_training_images(packed[2]).images, CROP, seed=5, cache_mib=0)
    whole = torch.stack(list(batches(dataset, 8, 3, 4)))
    shares = [
        torch.stack(list(batches(dataset, 8, 3, 4, workers, r, num_ranks)))
        for r, workers in zip(range(num_ranks), (0, 1, 2, 0), strict=False)
    ]
    assert torch.equal(torch.stack(shares, dim=2).flatten(1, 2), whole)


class TestDamage:
    def test_a_shard_that_was_cut(self, packed):
        shard = packed[2] / "shard-000000.tar"
        shard.write_bytes(shard.read_bytes()[:-100])
        with pytest.raises(DataError, match=r"shard-000000\.tar: expected \d+ bytes by index\.json, got \d+ bytes"):
            list_training_images(packed[2])

    def test_a_shard_that_is_missing_or_extra(self, packed):
        shard = packed[2] / "shard-000000.tar"
        shutil.copy(shard, packed[2] / "other.tar")
        with pytest.raises(DataError, match=r"other\.tar: expected no such file by index\.json, got \d+ bytes"):
            list_training_images(packed[2])
        shard.unlink()
        (packed[2] / "other.tar").rename(packed[2] / "shard-000001.tar")
        with pytest.raises(DataError, match=r"shard-000000\.tar: expected \d+ bytes by index\.json, got no such file"):
            list_training_images(packed[2])

    @pytest.mark.parametrize("text", ["", "[]", json.dumps({"shards": {}, "images": [{}]})])
    def test_an_index_that_is_damaged(self, packed, text):
        (packed[2] / "index.json").write_text(text)
        with pytest.raises(DataError, match="index.json: damaged"):
            list_training_images(packed[2])

    def test_a_file_that_is_no_tar(self, tmp_path):
        (tmp_path / "a.tar").write_bytes(b"not a tar file" * 100)
        with pytest.raises(DataError, match=r"a\.tar: expected an uncompressed tar"):
            list_training_images(tmp_path)

    def test_out_is_in_use(self, packed):
        with pytest.raises(DataError, match="expected a new or empty folder"):
            pack(packed[0], packed[2])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_mib", [0, 1])
def test_a_damaged_image_is_left_out_and_said_once(paths, workers, cache_mib, caplog):  # noqa: F811
    paths[2].write_bytes(paths[2].read_bytes()[:-40])
    dataset = CropDataset(paths, CROP, seed=0, cache_mib=cache_mib, skip_bad=True)
    with caplog.at_level(logging.WARNING, "distillkit"):
        seen = take(dataset, 0, 20, workers)
    assert set(seen[:, :, 0, 0, 0].mul(255).round().int().flatten().tolist()) == {0, 1, 3, 4}
    said = [record.getMessage() for record in caplog.records]
    said += [f"left out: {problem}" for problem in dataset.problems.values()] if cache_mib else []
    assert len(said) == 1
    assert said[0].startswith(f"left out: image {paths[2]}: expected a readable image")
    again = CropDataset(paths, CROP, seed=0, cache_mib=0, skip_bad=True)
    assert torch.equal(take(again, 7, 5), seen[7:12])  # a resumed run takes the same stand-ins


def test_a_run_on_shards_is_resumed_bit_for_bit(recipe, photographs, tmp_path, plugins):
    from tests.training.test_training import Interrupt, StopAfter

    pack(photographs, tmp_path / "shards", num_workers=1)
    r = recipe(data={"train": tmp_path / "shards", "crop": 64, "batch_size": 2}, checkpoint_every=1)
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(4)])
    assert same(weights(whole), weights(distillkit.train(r, tmp_path / "run", plugins=plugins)))


def test_the_command_takes_other_samples(tmp_path):
    from distillkit.cli.app import app

    (tmp_path / "grey").mkdir()
    Image.new("L", (40, 40)).save(tmp_path / "grey" / "grey.png")
    arguments = ["pack", str(tmp_path / "grey"), str(tmp_path / "out"), "--channels", "1"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert json.loads((tmp_path / "out/index.json").read_text())["samples"] == [1, 8]
    assert isinstance(CliRunner().invoke(app, [*arguments, "--bits", "17"]).exception, DataError)


def test_the_command(packed, tmp_path, capsys, monkeypatch):
    from distillkit import cli

    monkeypatch.setattr("sys.argv", ["distillkit", "pack", str(packed[0]), str(tmp_path / "again")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    said = capsys.readouterr()
    assert said.out.strip() == f"5 images in 1 shards, 2 left out: {tmp_path / 'again'}"
    assert said.err.count("left out: image") == 2
