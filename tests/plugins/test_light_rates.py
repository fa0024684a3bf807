"""Light decoders of codecs of many rates: they read the teacher's files of every quality, gains and all."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from distillkit_models.light_codec import Latents
from PIL import Image

import distillkit
from distillkit.evaluation.quality import psnr_db
from distillkit.evaluation.speed.measure import bench
from distillkit.evaluation.speed.table import notes
from distillkit.report.codecs import Codecs
from distillkit.report.runs import read_runs
from distillkit.report.sections import _speed

from ..golden.make import picture

RANGE = {"low": 0.005, "high": 0.1}
CODECS = {
    "gain units": {"name": "models.lowres", "gain_units": 3},
    "CompressAI's": {
        "name": "models.compressai",
        "teacher": {"architecture": "mbt2018-mean-vbr", "N": 8, "M": 12},
        "student": {"architecture": "mbt2018-mean-vbr", "N": 8, "M": 12},
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in (1, 2):
        Image.fromarray(picture(seed, 128, 128)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module", params=list(CODECS))
def files(request, photos, tmp_path_factory) -> tuple[Path, Path]:
    """A codec of many rates, its gains moved, and a light decoder of it."""
    folder = tmp_path_factory.mktemp("rates")
    keys = {"lmbda": RANGE, "data": {"train": str(photos), "crop": 64, "batch_size": 2, "num_crops": 4}}
    keys["optimizer"] = {"learning_rate": 1e-2}
    teacher = distillkit.train(
        distillkit.Recipe.create(pair=CODECS[request.param], num_steps=4, **keys), folder / "teacher"
    )
    pair = {"name": "models.light", "teacher": str(teacher), "synthesis": {"width": 8, "blocks": 1}}
    losses = {"kd.output": {}}
    return teacher, distillkit.train(
        distillkit.Recipe.create(pair=pair, num_steps=5, losses=losses, **keys), folder / "light"
    )


def codec_of(file: Path) -> distillkit.ImageCodec:
    model = distillkit.load_model(file)
    return distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")


def test_the_teachers_files_of_every_quality_are_read(files):
    teacher, light = map(codec_of, files)
    assert distillkit.load_model(files[1]).lmbda == distillkit.LmbdaRange(**RANGE)
    for quality in (0.0, 0.37, 1.0):
        data = teacher.encode(picture(), quality)
        assert light.decode(data).shape == picture().shape
        again = light.encode(picture(), quality)
        np.testing.assert_array_equal(teacher.decode(again), teacher.decode(data))


def test_it_trains_on_what_synthesis_takes_at_each_quality(files):
    """The latents of training are those that the light synthesis is given when it decodes a file."""
    latents = Latents(distillkit.load_model(files[0]).codec)
    pixels = picture(3, 128, 128)
    images = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255
    given = latents(images.repeat(2, 1, 1, 1), torch.tensor([0.1, 0.9]))
    codec, seen = codec_of(files[0]), []
    synthesis = codec._coder.adapter.module.g_s.network
    synthesis.register_forward_pre_hook(lambda _, args: seen.append(args[0]))  # after the gains' own hook
    for index, quality in enumerate((0.1, 0.9)):
        codec.decode(codec.encode(pixels, quality))
        difference = (given[index] - seen[-1][0].float()).abs()
        assert given[index].abs().max() > 0.05
        moved = (difference > 1e-3).float().mean()
        assert moved < 0.1  # a latent on the edge may round to either side, and move the means around it
    assert torch.equal(latents(images, 0.9), given[1:].clone())
    assert len(latents._kept) == 2


def test_all_but_the_synthesis_stays(files):
    before, after = (distillkit.load_model(file).codec.module.state_dict() for file in files)
    kept = [name for name in after if not name.startswith("g_s.")]
    assert len(kept) > 20
    assert all(torch.equal(before[name], after[name]) for name in kept)


@pytest.mark.slow
def test_bench_and_page_show_what_is_lost_at_equal_files(files, photos, monkeypatch):
    monkeypatch.setattr("distillkit.evaluation.speed.measure.measure_memory", lambda *_: None)
    pictures = sorted(photos.iterdir())
    teacher, light = map(codec_of, files)
    lost = {}
    for quality in (0.5, 0.9):
        pairs = [(distillkit.read_image(path), path) for path in pictures]
        data = [teacher.encode(image, quality) for image, _ in pairs]
        lost[quality] = fmean(
            psnr_db(image, teacher.decode(file)) - psnr_db(image, light.decode(file))
            for (image, _), file in zip(pairs, data, strict=True)
        )
    result = bench(files[1], pictures, teacher=files[0], repeats=1, quality=0.9, precision="fp32")
    assert result.lost_db == pytest.approx(lost[0.9], abs=1e-6)
    assert abs(result.lost_db) > 0.1  # after so few steps it may be the better one
    words = f"Equal files: the student decodes what the teacher wrote, {lost[0.9]:.2f} dB"
    assert any(line.startswith(words) for line in notes(result))
    assert bench(files[0], pictures[:1], repeats=1, precision="fp32").lost_db is None
    codecs = Codecs.load(read_runs(files[1].parent), distillkit.load_plugins())
    assert _speed(codecs, pictures)["lost_db"] == pytest.approx(lost[0.5], abs=0.3)  # it may be in bf16
