"""Codecs with the habits of others' code: through all of FEDS, files, evaluation, and their check."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import distillkit
import distillkit.testing
import tests.habits
from distillkit.model.complexity import kmac_per_pixel
from tests.habits import HABITS, Coarse, HabitPair, Named, Viewed, Wrapped
from tests.lively import picture

FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}


@pytest.fixture(scope="module")
def habit_plugins():
    return distillkit.load_plugins(habits=tests.habits)


OTHERS = [pytest.param(habit, marks=pytest.mark.slow) for habit in ("residual", "held", "masked", "viewed")]


@pytest.mark.parametrize("habit", ["slices", "wrapped", "coarse", "named", *OTHERS])
def test_a_whole_distillation_files_and_evaluation(habit, recipe, photographs, tmp_path, habit_plugins):
    folder, crop = photographs, 64
    if habit == "coarse":
        folder, crop = tmp_path / "large", 128
        folder.mkdir()
        Image.fromarray(picture(140, 160)).save(folder / "waves.png")
    data = {"train": folder, "crop": crop, "batch_size": 1}
    common = {"pair": {"name": "habits.pair", "habit": habit}, "data": data, "precision": "fp32"}
    constant = {"name": "core.constant"}
    teacher = distillkit.train(
        recipe(**common, trains="teacher", num_steps=2, schedule=constant), tmp_path / "t", plugins=habit_plugins
    )
    run = tmp_path / "s"
    distillkit.train(
        recipe(**common, losses=FEDS, teacher=teacher, num_steps=5, log_every=1), run, plugins=habit_plugins
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss/feds.alignment"] > 0
    assert any(row.get("loss/feds.channel_entropy", 0) > 0 for row in rows)
    models = [distillkit.load_model(run, habit_plugins) for _ in range(2)]
    first, second = (distillkit.ImageCodec(model.codec, model.fingerprint) for model in models)
    assert first.is_fast
    assert second.decode(first.encode(picture())).shape == picture().shape
    result = distillkit.evaluate(first, sorted(photographs.iterdir())[:1], tmp_path / "evaluation", 0.01)
    assert result.averages["psnr_db"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("habit", HABITS)
def test_the_check_passes(habit, habit_plugins):
    distillkit.testing.check_pair(HabitPair, plugins=habit_plugins, habit=habit)


class Everything(HabitPair):
    """All at once that can go wrong."""

    def build_student(self):
        codec = Coarse(8, 16)
        codec.g_a, codec.transform = None, codec.g_a
        forward = lambda x: {"x_hat": x, "likelihoods": {"a": x[:, :1] * 0 + 0.5, "b": x[:, :1] * 0 + 0.5}}  # noqa: E731
        codec.forward = lambda x: forward(x) if x.shape[2] % 128 == 0 else Coarse.forward(codec, x)
        return codec


def test_the_check_finds_all_in_one_report(habit_plugins):
    with pytest.raises(AssertionError) as caught:
        distillkit.testing.check_pair(Everything, plugins=habit_plugins)
    lines = str(caught.value).splitlines()
    assert "failures:" in lines[0]
    report = "\n".join(lines[1:])
    for words in (
        "student: expected pictures of 64x64, got AssertionError: window does not fit; it takes 128x128: return "
        "distillkit.CompressAIAdapter(codec, stride=128) from the pair",
        "student: expected likelihoods of the latent as 'y', shape (B, C, h, w), got a, b; name them so",
        "student: compress and decompress: TypeError: 'NoneType' object is not callable; correct them",
        "student: a training step: RuntimeError: element 0 of tensors does not require grad",
    ):
        assert words in report, report
    assert all(line.startswith("  - ") for line in lines[1:])
    assert not any("teacher:" in line for line in lines[1:])


def test_taps_of_wrapped_blocks_are_found(habit_plugins):
    provider_class, config = habit_plugins.configure("taps", "models.by_resolution", {}, "test")
    taps = distillkit.find_taps(Wrapped(), provider_class(config), (64, 64))
    assert {role: path for role, path in taps.items() if role.startswith(("analysis", "synthesis"))} == {
        "analysis.1/2": "g_a.0.stages.0",
        "analysis.1/4": "g_a.0.stages.1",
        "synthesis.1/8": "g_s.stages.0",
        "synthesis.1/4": "g_s.stages.1",
    }


def test_likelihoods_have_their_usual_names():
    images = torch.rand(1, 3, 64, 64)
    names = {}
    for habit in ("slices", "named"):
        names[habit] = set(distillkit.CompressAIAdapter(HABITS[habit]()).forward(images).likelihoods)
    assert names["slices"] == {"y", "z"}
    assert names["named"] == {"y"}


def test_tables_outside_of_buffers_are_computed_when_a_model_is_loaded(tmp_path, habit_plugins):
    from distillkit.model.file import save_model

    codec = distillkit.CompressAIAdapter(Named())
    codec.module.steps.data.fill_(1.0)
    path = tmp_path / "m.safetensors"
    save_model(path, codec, "habits.pair", {"habit": "named"}, "student", 0.01)
    loaded = distillkit.load_model(path, habit_plugins)
    assert torch.equal(loaded.codec.module.table, codec.module.table)
    assert torch.equal(loaded.codec.module.sizes, codec.module.sizes)


def test_a_view_of_a_parameter_is_counted():
    codec = distillkit.CompressAIAdapter(Viewed(8, 16))
    plain = distillkit.CompressAIAdapter(HABITS["masked"].__bases__[0](8, 16))
    extra = 16 * 16 / 16**2 / 1000  # one 1x1 convolution of the latent
    assert kmac_per_pixel(codec, 64) == pytest.approx(kmac_per_pixel(plain, 64) + extra)
    assert all(parameter.requires_grad for parameter in codec.module.parameters())
