"""Runs of codecs of many rates: each crop by its own lambda, the same on resume, with two processes, with a teacher."""

from __future__ import annotations

import math

import pytest
import torch

import distillkit
from distillkit.data.crops import CropDataset, share_of
from distillkit.errors import RecipeError
from distillkit.model.conditioned import FIXED_POINTS
from distillkit.model.lmbda import LmbdaRange, as_lmbda
from distillkit.training.objectives.objective import rate_distortion

RANGE = {"low": 0.002, "high": 0.032}
GAINED = {"name": "small.gained"}


def test_a_range_by_its_formula():
    lmbda = LmbdaRange(0.002, 0.032)
    assert [lmbda.at(q) for q in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.002, 0.004, 0.008, 0.032])
    assert lmbda.quality_of(0.016) == pytest.approx(0.75)
    assert lmbda.quality_of(lmbda.at(torch.tensor([0.1, 0.9]))).tolist() == pytest.approx([0.1, 0.9])
    assert lmbda.holds(0.002)
    assert not lmbda.holds(LmbdaRange(0.004, 0.064))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"low": 0.1}, "expected low and high, got low"),
        ({"low": 0.1, "high": 0.2, "step": 1}, "got low, high, step"),
        ({"low": 0.2, "high": 0.1}, "0 < low < high"),
        ({"low": 0, "high": 0.1}, "0 < low < high"),
        ({"low": "a", "high": 0.1}, "0 < low < high"),
        (-1, "a number above 0, or {low = ..., high = ...}, got -1"),
        (math.inf, "a number above 0"),
        ("x", "a number above 0"),
    ],
)
def test_no_lambda(value, message):
    with pytest.raises(RecipeError, match=message.replace("{", r"\{").replace("(", r"\(")):
        distillkit.Recipe.create(pair=GAINED, num_steps=1, data={"train": "."}, lmbda=value)
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        as_lmbda(value)


def test_a_recipe_with_a_range_survives_its_file(recipe, tmp_path):
    written = recipe(pair=GAINED, lmbda=RANGE)
    written.save(tmp_path / "recipe.toml")
    assert distillkit.Recipe.load(tmp_path / "recipe.toml").lmbda == LmbdaRange(0.002, 0.032)


def test_each_crop_counts_by_its_own_lambda():
    images = torch.zeros(2, 3, 4, 4)
    x_hat = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.2)])
    output = distillkit.CodecOutput(x_hat, {"y": torch.full((2, 1, 2, 2), 0.5)})
    found = rate_distortion(output, images, torch.tensor([0.01, 0.05]))
    assert float(found.cost) == pytest.approx(255**2 * (0.01 * 0.01 + 0.05 * 0.04) / 2 + 8 / 32)
    assert float(found.mse) == pytest.approx((0.01 + 0.04) / 2)
    alike = rate_distortion(output, images, torch.tensor([0.01, 0.01]))
    assert float(alike.cost) == pytest.approx(float(rate_distortion(output, images, 0.01).cost))


def test_the_cost_of_a_low_rate_counts_as_much_as_that_of_a_high_one():
    lmbda = LmbdaRange(0.002, 0.032)
    weights = lmbda.weight_of(torch.tensor([0.0, 0.5, 1.0]))
    assert weights.tolist() == pytest.approx([2.0, 1.0, 0.5])
    images = torch.zeros(2, 3, 4, 4)
    x_hat = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.2)])
    likelihoods = {"y": torch.stack([torch.full((1, 2, 2), 0.5), torch.full((1, 2, 2), 0.25)])}
    output = distillkit.CodecOutput(x_hat, likelihoods)
    found = rate_distortion(output, images, torch.tensor([0.01, 0.05]), weight=torch.tensor([2.0, 0.5]))
    costs = [255**2 * 0.01 * 0.01 + 4 / 16, 255**2 * 0.05 * 0.04 + 8 / 16]
    assert float(found.cost) == pytest.approx((2 * costs[0] + 0.5 * costs[1]) / 2)
    assert float(found.rate_bpp) == pytest.approx(12 / 32)


def test_qualities_are_even_and_follow_from_the_sample_alone(photographs):
    dataset = CropDataset(sorted(photographs.iterdir()), 64, seed=3)
    drawn = dataset.qualities(range(2000))
    counts = torch.histc(drawn, 10, 0, 1)
    assert counts.min() > 195
    assert counts.max() < 205
    for batch in drawn.split(8):  # each covers the range
        assert batch.sort().values.diff().max() < 0.25
    assert torch.equal(drawn[8:16], dataset.qualities(share_of(1, 1, 8)))
    ranks = [dataset.qualities(share_of(1, 1, 8, rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.stack(ranks, 1).flatten(), drawn[8:16])
    assert not torch.equal(drawn, dataset.with_seed(4).qualities(range(2000)))


def weights(path):
    return distillkit.load_model(path, plugins_of()).codec.module.state_dict()


def plugins_of():
    import tests.small_pair

    return distillkit.load_plugins(small=tests.small_pair)


def test_a_run_that_was_stopped_comes_to_the_same_weights(recipe, plugins, tmp_path):
    whole = recipe(pair=GAINED, lmbda=RANGE, num_steps=6, checkpoint_every=3)
    model = distillkit.train(whole, tmp_path / "whole", plugins=plugins)

    class Stop:
        @distillkit.hookimpl
        def checkpoint_saved(self, step):
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distillkit.train(whole, tmp_path / "parts", plugins=plugins, observers=[Stop()])
    again = distillkit.train(whole, tmp_path / "parts", plugins=plugins)
    found, expected = weights(again), weights(model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert distillkit.load_model(again, plugins).lmbda == LmbdaRange(0.002, 0.032)


def test_all_gains_move(recipe, plugins, tmp_path):
    model = distillkit.train(recipe(pair=GAINED, lmbda=RANGE, num_steps=8), tmp_path / "run", plugins=plugins)
    gains = distillkit.load_model(model, plugins).codec.module.gain
    fresh = plugins.configure("pair", "small.gained", {}, "test")[0](None).build_student().module.gain
    for name, parameter in gains.named_parameters():
        moved = (parameter - fresh.get_parameter(name)).abs().sum(dim=1)
        assert (moved > 0).all(), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmbda": RANGE}, "has one rate, got the range 0.002 to 0.032"),
        ({"pair": GAINED}, "is a codec of many rates, got 0.013"),
    ],
)
def test_a_range_is_for_codecs_of_many_rates(recipe, plugins, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        distillkit.train(recipe(**changes), tmp_path / "run", plugins=plugins)


LOSSES = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}


@pytest.fixture(scope="module")
def variable_teacher(tmp_path_factory, photographs):
    recipe = distillkit.Recipe.create(
        trains="teacher",
        pair=GAINED,
        lmbda={"low": 0.001, "high": 0.064},
        num_steps=2,
        data={"train": photographs, "crop": 64, "batch_size": 2},
        device="cpu",
    )
    return distillkit.train(recipe, tmp_path_factory.mktemp("variable") / "run", plugins=plugins_of())


@pytest.mark.parametrize("student", [{"pair": GAINED, "lmbda": RANGE}, {"lmbda": 0.008}], ids=["variable", "single"])
def test_a_teacher_of_many_rates_teaches_at_the_lambda_of_each_crop(
    recipe, plugins, tmp_path, variable_teacher, student, monkeypatch
):
    heard = []
    real = distillkit.GainedCodec.forward

    def forward(self, images, quality=0.5):
        if not self.module.training:
            heard.append((images.clone(), quality))
        return real(self, images, quality)

    monkeypatch.setattr(distillkit.GainedCodec, "forward", forward)
    job = recipe(teacher=variable_teacher, losses=LOSSES, num_steps=3, **student)
    distillkit.train(job, tmp_path / "run", plugins=plugins)
    qualities = [each for images, quality in heard if len(images) == 2 and torch.is_tensor(quality) for each in quality]
    assert qualities
    teacher = LmbdaRange(0.001, 0.064)
    if "pair" in student:  # the student's range within the teacher's
        assert min(qualities) >= teacher.quality_of(0.002) - 1e-5
        assert max(qualities) <= teacher.quality_of(0.032) + 1e-5
        assert len({float(each) for each in qualities}) > 4
    else:
        assert [float(each) for each in qualities] == pytest.approx([0.5] * len(qualities))


def test_a_teacher_of_another_range_is_refused(recipe, plugins, tmp_path, variable_teacher, teacher_file):
    wide = recipe(teacher=variable_teacher, losses=LOSSES, pair=GAINED, lmbda={"low": 0.0005, "high": 0.01})
    with pytest.raises(distillkit.PairError, match=r"trained for lmbda 0.001 to 0.064, this run is for 0.0005 to 0.01"):
        distillkit.train(wide, tmp_path / "run", plugins=plugins)
    single = recipe(teacher=teacher_file, losses=LOSSES, pair=GAINED, lmbda=RANGE)
    with pytest.raises(distillkit.PairError, match=r"trained for lmbda 0.013, this run is for 0.002 to 0.032"):
        distillkit.train(single, tmp_path / "other", plugins=plugins)


def test_compressais_own_codecs_train_and_teach(recipe, plugins, tmp_path):
    codec = {"architecture": "mbt2018-mean-vbr", "N": 8, "M": 12}
    pair = {"name": "models.compressai", "teacher": codec, "student": codec}
    teacher = distillkit.train(
        recipe(trains="teacher", pair=pair, lmbda=RANGE, num_steps=2, schedule={"name": "core.constant"}),
        tmp_path / "teacher",
        plugins=plugins,
    )
    job = recipe(pair=pair, teacher=teacher, lmbda=RANGE, losses=LOSSES, num_steps=3)
    student = distillkit.train(job, tmp_path / "student", plugins=plugins)
    assert distillkit.load_model(student, plugins).lmbda == LmbdaRange(0.002, 0.032)


def test_channels_are_ranked_at_each_quality():
    from distillkit_feds.channel_entropy import ChannelEntropy

    shape = {"latent": distillkit.TapShape(3, 1, 1)}
    term = ChannelEntropy(ChannelEntropy.Config(keep=0.7), distillkit.TapShapes(shape, shape))
    bits = [[8.0, 1.0, 1.0], [8.0, 1.0, 1.0], [4.0, 1.0, 5.0], [1.0, 1.0, 8.0], [1.0, 1.0, 8.0]]
    term.load_calibration({"qualities": list(FIXED_POINTS), "bits_per_pixel": bits})
    teacher = torch.zeros(2, 3, 1, 1)
    student = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1).repeat(2, 1, 1, 1)
    images = torch.zeros(2, 3, 64, 64)

    def loss(qualities):
        taps = {"latent": distillkit.TapPair(student, teacher)}
        output = distillkit.CodecOutput(images, {})
        return float(term(distillkit.Step(images, output, taps, quality=torch.tensor(qualities))))

    assert loss([0.0, 0.0]) == pytest.approx(1.0)  # the first channel alone carries 80 % of the bits
    assert loss([1.0, 1.0]) == pytest.approx(10_000.0)  # here the last one
    assert loss([0.0, 1.0]) == pytest.approx((1 + 10_000) / 2)
    middle = 4 / 9 * 1 + 5 / 9 * 10_000
    assert loss([0.5, 0.5]) == pytest.approx(middle)
    assert loss([0.375, 0.375]) == pytest.approx((1 + middle) / 2)  # weights between two qualities are linear


def test_validation_is_at_fixed_points(recipe, plugins, tmp_path, photographs, monkeypatch):
    heard = []
    real = distillkit.GainedCodec.forward

    def forward(self, images, quality=0.5):
        if not self.module.training and torch.is_tensor(quality):
            heard.append(quality.tolist())
        return real(self, images, quality)

    monkeypatch.setattr(distillkit.GainedCodec, "forward", forward)
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    for path in sorted(photographs.iterdir())[:1]:
        (held_out / path.name).write_bytes(path.read_bytes())
    validation = {"data": held_out, "every": 2, "crops": 5}
    distillkit.train(
        recipe(pair=GAINED, lmbda=RANGE, num_steps=4, validation=validation), tmp_path / "run", plugins=plugins
    )
    assert [each for batch in heard[:3] for each in batch] == pytest.approx(list(FIXED_POINTS))
    assert heard[:3] == heard[3:]
