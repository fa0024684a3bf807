"""What a page measures inside teacher and student, against figures computed another way."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import distillkit
from distillkit.data.samples import RGB
from distillkit.evaluation.bits import bits_by_channel, bits_by_position, load_crops
from distillkit.model.adapters import as_codec
from distillkit.report.inside import explained_variance, kept_channels
from distillkit.report.plots_inside import channels
from distillkit.report.speed import coding_time
from distillkit.report.svg import Plot, Scale
from distillkit.taps.bank import TapShape, TapShapes
from tests.small_pair import SmallPair

TAPS = {"analysis.1/2": "g_a.0", "latent": "g_a.6"}


def built(part, seed):
    torch.manual_seed(seed)
    pair = SmallPair(SmallPair.Config())
    codec = as_codec(pair.build_student() if part == "student" else pair.build_teacher())
    codec.update()
    codec.module.eval()
    return codec


@pytest.fixture
def crops():
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(1, 3, 64, 64, generator=generator) for _ in range(4)]


def test_a_teacher_is_explained_by_itself_and_less_by_another(crops):
    def shares(student):
        pair = distillkit.TeachingPair(built("teacher", 0), student, (TAPS, TAPS))
        pair.probe((64, 64))
        return explained_variance(pair, list(TAPS), crops)[0]

    itself = shares(built("teacher", 0))
    assert itself == pytest.approx({"analysis.1/2": 1, "latent": 1}, abs=1e-4)
    other = shares(built("student", 1))
    assert all(value < 0.999 for value in other.values())
    assert other["analysis.1/2"] > 0.1  # filters of 5x5 pixels, 8 against 16: they see the same pixels


def test_a_linear_map_of_the_teacher_explains_it(crops):
    teacher, student = built("teacher", 0), built("teacher", 0)
    with torch.no_grad():
        mix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
        layer = student.module.g_a[0]
        layer.weight.copy_(torch.einsum("oc,chwi->ohwi", mix, layer.weight))
        layer.bias.copy_(mix @ layer.bias + 1)
    taps = {"analysis.1/2": "g_a.0"}
    pair = distillkit.TeachingPair(teacher, student, (taps, taps))
    pair.probe((64, 64))
    shares, num_images = explained_variance(pair, list(taps), crops)
    assert shares["analysis.1/2"] == pytest.approx(1, abs=1e-3)
    assert num_images == len(crops)
    assert explained_variance(pair, list(taps), crops[:1]) == ({}, 1)


def test_the_share_is_that_of_a_fit_on_every_other_picture_of_all(crops):
    pair = distillkit.TeachingPair(built("teacher", 0), built("student", 1), (TAPS, TAPS))
    pair.probe((64, 64))
    pictures = [crops[place % 4] * (1 - place / 40) for place in range(12)]
    shares, num_images = explained_variance(pair, ["latent"], pictures)
    samples = []
    for picture in pictures:
        with torch.no_grad():
            _, taps = pair.run_student(picture, pair.run_teacher(picture, ["latent"]))
        samples.append([side[0].flatten(1).T.double().numpy() for side in taps["latent"]])
    x, y = (np.concatenate([sample[side] for sample in samples[::2]]) for side in (0, 1))
    weights = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    x, y = (np.concatenate([sample[side] for sample in samples[1::2]]) for side in (0, 1))
    error = np.square(y - np.c_[x, np.ones(len(x))] @ weights).sum()
    assert num_images == 12
    assert shares["latent"] == pytest.approx(1 - error / np.square(y - y.mean(axis=0)).sum(), abs=1e-3)


def test_bits_add_up(crops):
    codec = built("student", 0)
    found = bits_by_channel(codec, crops[:1])
    with torch.no_grad():
        likelihoods = codec.forward(crops[0]).likelihoods
    y = float(-likelihoods["y"].log2().sum()) / 64**2
    assert sum(found.by_channel) == pytest.approx(y, rel=1e-5)
    assert found.rate_bpp == pytest.approx(y + float(-likelihoods["z"].log2().sum()) / 64**2, rel=1e-5)
    picture = (crops[0][0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    positions = bits_by_position(codec, picture)
    assert positions.shape == (4, 4)
    with torch.no_grad():
        same = codec.forward(torch.from_numpy(picture.transpose(2, 0, 1)[None] / np.float32(255))).likelihoods["y"]
    assert positions.mean() == pytest.approx(float(-same.log2().sum()) / 64**2, rel=1e-5)
    assert bits_by_position(codec, picture[:40, :60]).shape == (3, 4)  # positions of the picture, not of its margin
    assert bits_by_channel(codec, []) is None


@pytest.mark.parametrize("silent", [[0.0, 0.0], [2e-5, 1e-6]])
def test_a_codec_that_spends_next_to_nothing_is_drawn_too(silent):
    drawn = channels([("loud", "student", [0.3, 0.1]), ("silent", "control", silent)])
    assert "loud" in drawn
    assert "silent" in drawn
    assert "nan" not in channels([("silent", "student", silent)]).lower()


def test_crops_are_the_middle_of_some_pictures(photographs):
    crops = list(load_crops(sorted(photographs.iterdir()), 64, RGB))
    assert [tuple(crop.shape) for crop in crops] == [(1, 3, 64, 128)] * 3
    original = distillkit.read_image(sorted(photographs.iterdir())[0])[16:80]
    assert np.array_equal(crops[0][0].permute(1, 2, 0).numpy(), original / np.float32(255))
    assert list(load_crops(sorted(photographs.iterdir()), 256, RGB)) == []


def test_the_channels_are_those_that_the_loss_kept(plugins, recipe):
    shapes = TapShapes({"latent": TapShape(16, 4, 4)}, {"latent": TapShape(16, 4, 4)})
    bits = [1.0 / (1 + (5 * channel) % 16) for channel in range(16)]
    records = {"feds.channel_entropy": {"bits_per_pixel": bits}, "gone.loss": {"bits_per_pixel": bits}}
    three = recipe(losses={"feds.channel_entropy": {"select": "top", "num_channels": 3}})
    order = sorted(range(16), key=lambda channel: -bits[channel])
    assert kept_channels(three, shapes, records, plugins) == {"feds.channel_entropy": order[:3]}
    other = {"feds.channel_entropy": {"bits_per_pixel": bits[:4]}}
    assert kept_channels(three, shapes, other, plugins) == {}
    assert kept_channels(recipe(losses={}), shapes, records, plugins) == {}


def test_the_parts_of_the_time_are_there(photographs):
    codec = built("student", 0)
    picture = distillkit.read_image(sorted(photographs.iterdir())[0])
    image_codec = distillkit.ImageCodec(codec, "ab" * 16)
    timed = coding_time(image_codec, picture)
    for parts in (timed.encode, timed.decode):
        assert parts["transform"] > 0
        assert len(parts) > 1
        assert min(parts.values()) > 0


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 10, False, [0, 2, 4, 6, 8, 10]),
        (0.31, 0.58, False, [0.35, 0.4, 0.45, 0.5, 0.55]),
        (-3, 3, False, [-3, -2, -1, 0, 1, 2, 3]),
        (0.9, 120, True, [1, 2, 5, 10, 20, 50, 100]),
        (1e-5, 1, True, [1e-5, 1e-4, 1e-3, 0.01, 0.1, 1]),
    ],
)
def test_ticks_are_round(low, high, log, expected):
    scale = Scale(low, high, 0, 100, log)
    assert scale.ticks(6) == pytest.approx(expected)
    assert (scale(low), scale(high)) == pytest.approx((0, 100))


def test_labels_do_not_overlap_and_text_is_escaped():
    plot = Plot(300, 120)
    plot.scales((0, 1), (0, 1))
    plot.labels([(10, 50.0, "a<b", "teacher"), (10, 51.0, "c", "control"), (10, 52.0, "d", 'x"y')])
    drawn = str(plot.done("A & B"))
    heights = sorted(float(part.split('"')[0]) for part in drawn.split(' y="')[1:])
    assert min(b - a for a, b in pairwise(heights)) >= 14
    assert "a&lt;b" in drawn
    assert 'aria-label="A &amp; B"' in drawn
    assert 's-x"y' not in drawn
