"""Students of `models.lowres` that start sliced out of their teacher."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from compressai.layers import CheckerboardMaskedConv2d
from compressai.models import MeanScaleHyperprior
from distillkit_models.cheng2020 import Cheng2020Pair
from distillkit_models.cheng2020_net import Cheng2020
from distillkit_models.cheng2020_presets import Cheng2020Size
from distillkit_models.lowres import LowResPair
from distillkit_models.lowres_net import LowRes
from distillkit_models.lowres_presets import LowResSize
from distillkit_models.slicing import fit, keep_gains, recorded
from distillkit_models.swin import SwinPair
from distillkit_models.swin_net import SwinCodec
from distillkit_models.swin_presets import SwinSize
from PIL import Image

import distillkit
from distillkit.model.conditioned import FixedQuality
from distillkit.model.initialise import inherit_weights

from ..golden.make import picture

LARGE = LowResSize(width=48, latent=32, blocks=3, swin_depth=1, hyper_width=16, entropy_width=24, context_kernel=5)
SMALL = LowResSize(width=32, latent=32, blocks=2, swin_depth=0, hyper_width=12, entropy_width=16)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in (1, 2):
        Image.fromarray(picture(seed, 128, 128)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(4, 3, side, side, generator=generator) for side in (6, 24)]
    first, second = (torch.nn.functional.interpolate(each, size=(128, 128), mode="bicubic") for each in coarse)
    picture = (0.8 * first + 0.2 * second).clamp(0, 1)
    return [picture, picture.flip(3)]


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    codec = distillkit.GainedCodec(LowRes(LARGE), 3)
    with torch.no_grad():  # blocks are the identity when built
        for name, parameter in codec.module.named_parameters():
            if name.endswith(("out_of.weight", "merge.weight")):
                parameter.normal_(0, 0.02)
            if name.startswith("gain"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    codec.module.eval()
    return codec


def cut(teacher, images, size, levels):
    """Return a student as `initial_weights = "teacher"` has it before the pair improves it."""
    torch.manual_seed(1)
    student = distillkit.GainedCodec(LowRes(size), levels) if levels else distillkit.as_codec(LowRes(size))
    student.module.eval()
    with torch.no_grad():
        bits = -teacher.forward(images[0]).likelihoods["y"].log2().sum(dim=(0, 2, 3))
    inherit_weights(student.module, teacher.module, bits)
    return student


def mse(codec, images):
    with torch.no_grad():
        return torch.stack([(codec.forward(each).x_hat - each).square().mean() for each in images]).mean().item()


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("latent", [32, 24])
def test_a_sliced_student_is_near_its_teacher(teacher, images, levels, latent):
    size = LowResSize(**{**vars(SMALL), "latent": latent})
    student = cut(teacher, images, size, levels)
    own = FixedQuality(student, 0.5) if levels else student
    fixed = FixedQuality(teacher, 0.5)
    before = mse(own, images)
    pair = LowResPair(LowResPair.Config(size="tiny"))
    assert pair.start_student(own, fixed, images)
    after, reached = mse(own, images), mse(fixed, images)
    assert after < before / 4
    assert after < 2 * reached + 1e-3
    with torch.no_grad():
        rates = [sum(-p.log2().sum() for p in each.forward(images[0]).likelihoods.values()) for each in (own, fixed)]
    assert rates[0] < 1.5 * rates[1]
    if levels:
        assert student.module.gain.y.shape[1] == latent


def test_what_is_no_smaller_is_left_alone(teacher, images):
    pair = LowResPair(LowResPair.Config(size="tiny"))
    for size in (LARGE, LowResSize(**{**vars(SMALL), "width": 64, "hyper_width": 18})):
        student = distillkit.as_codec(LowRes(size).eval())
        weights = copy.deepcopy(student.module.state_dict())
        assert not pair.start_student(student, FixedQuality(teacher, 0.5), images)
        assert all(torch.equal(weights[name], value) for name, value in student.module.state_dict().items())
    assert not pair.start_student(distillkit.as_codec(MeanScaleHyperprior(8, 8)), teacher, images)


@pytest.mark.parametrize(
    ("pair_class", "build"),
    [
        (LowResPair, lambda: LowRes(LowResSize(**{**vars(SMALL), "width": 64}))),
        (Cheng2020Pair, lambda: Cheng2020(Cheng2020Size(16, 32, 0, 0, 12, 16, 3))),
        (SwinPair, lambda: SwinCodec(SwinSize((8, 8, 16, 32), (1, 1, 1, 0), 2, 12, 16, 3))),
    ],
    ids=["wider", "cheng2020", "swin"],
)
def test_a_student_of_other_transforms_takes_over_the_entropy_model(pair_class, build, teacher, images):
    torch.manual_seed(2)
    student, fixed = distillkit.as_codec(build().eval()), FixedQuality(teacher, 0.5)
    module = student.module
    transforms = copy.deepcopy({"g_a": module.g_a.state_dict(), "g_s": module.g_s.state_dict()})

    def apart():
        """Return how far scales and means are from the teacher's, for its latents."""
        given = iter(recorded(fixed, images, [teacher.module.g_a])[0])
        handle = module.g_a.register_forward_hook(lambda *_: next(given))
        own, theirs = (
            torch.cat(recorded(codec, images, [codec.module.latent_codec["y"].entropy_parameters])[0])
            for codec in (student, fixed)
        )
        handle.remove()
        return (own - theirs).square().mean().item()

    before = apart()
    assert pair_class(pair_class.Config(size="tiny")).start_student(student, fixed, images)
    assert apart() < before / 4
    for name, values in transforms.items():
        assert all(torch.equal(values[key], each) for key, each in getattr(module, name).state_dict().items())


def test_gains_of_other_levels_are_left_alone(teacher):
    other = distillkit.GainedCodec(LowRes(SMALL), 4)
    before = other.module.gain.y.detach().clone()
    keep_gains(other.module, teacher.module, ("y",), torch.arange(32))
    assert torch.equal(other.module.gain.y, before)


@pytest.mark.parametrize("kind", [torch.nn.Conv2d, CheckerboardMaskedConv2d])
def test_a_layer_is_found_again(kind):
    torch.manual_seed(0)
    source, layer = (kind(3, 5, 3, padding=1) for _ in range(2))
    inputs = [torch.randn(2, 3, 16, 16) for _ in range(3)]
    with torch.no_grad():
        targets = [source(each) for each in inputs]
        fit(layer, inputs, targets)
        assert all(torch.allclose(layer(x), y, atol=0.01) for x, y in zip(inputs, targets, strict=True))


@pytest.mark.parametrize("levels", [None, 3])
def test_a_run_starts_from_a_sliced_student(photos, tmp_path, plugins, levels):
    """The teacher is of many rates; the student is run where their trade-offs are equal."""
    lmbda = {"low": 0.005, "high": 0.1}
    pair = {"name": "models.lowres", "size": "tiny"}
    keys = {"data": {"train": photos, "crop": 64, "batch_size": 2, "num_crops": 4}, "num_steps": 0}
    build = distillkit.Recipe.create
    first = build(trains="teacher", pair={**pair, "gain_units": 3}, lmbda=lmbda, **keys)
    teacher = distillkit.train(first, tmp_path / "teacher", plugins=plugins)
    notes: list[str] = []

    class Listen:
        @distillkit.hookimpl
        def run_started(self, run):
            notes.extend(run.notes)

    recipe = build(
        pair={**pair, "gain_units": levels} if levels else pair,
        lmbda=lmbda if levels else 0.02,
        teacher=teacher,
        initial_weights="teacher",
        **keys,
    )
    file = distillkit.train(recipe, tmp_path / "student", plugins=plugins, observers=[Listen()])
    assert any("the pair fitted layers to what the teacher computes" in note for note in notes)
    large, small = (distillkit.load_model(path, plugins).codec for path in (teacher, file))
    quality = distillkit.LmbdaRange(**lmbda).quality_of(0.02)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    fixed = FixedQuality(large, quality)
    assert mse(FixedQuality(small, quality) if levels else small, [images]) < 2 * mse(fixed, [images]) + 1e-3
