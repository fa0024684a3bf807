"""Mask decay: what fades is the line by hand, and the student that is cut out computes what the large codec does."""

from __future__ import annotations

import pytest
import torch

import distillkit
from distillkit.errors import RecipeError
from distillkit.model.adapters import as_codec
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint

from ..training.test_training import Interrupt, StopAfter, same, weights

CONSTANT = {"name": "core.constant"}
MASK_DECAY = distillkit.load_plugins().get("extension", "kd.mask_decay", "test")


def extension(plugins, share=0.5, num_steps=4):
    torch.manual_seed(0)
    pair_class = plugins.get("pair", "small.pair", "test")
    pair = pair_class(pair_class.Config())
    student, teacher = as_codec(pair.build_student()), as_codec(pair.build_teacher())
    return MASK_DECAY(MASK_DECAY.Config(share=share), distillkit.Trained(student, teacher, num_steps, 64)), teacher


def test_what_goes_fades_on_a_line_and_what_stays_is_untouched(plugins):
    decay, teacher = extension(plugins)  # T = 2 of 4 steps
    weight = dict(decay.codec.module.named_parameters())["g_a.0.weight"]
    start = dict(teacher.module.named_parameters())["g_a.0.weight"].detach().clone()
    halved = zeros = None
    for step in range(3):
        decay.after_step(step)
        changed = weight.detach() != start
        if step == 0:
            halved = torch.equal(weight.detach()[changed], start[changed] / 2)
        elif step == 1:
            zeros = not weight.detach()[changed].any()
    assert halved
    assert zeros
    assert changed.flatten(1).all(1).sum() == 8  # of 16 channels, 8 go whole, and 8 stay whole
    assert (~changed).flatten(1).all(1).sum() == 8


def test_the_student_is_the_large_codec_without_what_went(plugins):
    decay, _ = extension(plugins)
    for step in range(2):
        decay.after_step(step)
    images = torch.rand(1, 3, 64, 64)
    with decay.as_saved(decay.codec) as student, torch.no_grad():
        assert student is not decay.codec
        large, small = (codec.module.eval()(images) for codec in (decay.codec, student))
    assert torch.allclose(large["x_hat"], small["x_hat"], atol=1e-5)
    assert torch.allclose(large["likelihoods"]["y"], small["likelihoods"]["y"], atol=1e-5)


def test_gradients_of_what_went_are_dropped(plugins):
    decay, _ = extension(plugins)
    for parameter in decay.codec.module.parameters():
        parameter.grad = torch.ones_like(parameter)
    decay.after_backward(1)
    assert all(parameter.grad.all() for parameter in decay.codec.module.parameters())
    decay.after_backward(2)
    gradient = dict(decay.codec.module.named_parameters())["g_a.0.weight"].grad
    assert gradient.flatten(1).any(1).sum() == 8


@pytest.fixture
def decaying(recipe, teacher_file):
    def build(**changes):
        optimizer = {"name": "adam", "learning_rate": 1e-3}
        values = {"teacher": teacher_file, "extensions": {"kd.mask_decay": {}}, "num_steps": 6, "schedule": CONSTANT}
        return recipe(**values | {"optimizer": optimizer, "checkpoint_every": 1} | changes)

    return build


@pytest.mark.slow
def test_a_run_leaves_a_student_and_resumes_bit_for_bit(decaying, recipe, tmp_path, plugins, photographs):
    """Beside its control, the same student from the same teacher's weights cut at once."""
    whole = distillkit.train(decaying(), tmp_path / "whole", plugins=plugins)
    model = distillkit.load_model(whole, plugins)
    assert model.part == "student"
    assert model.codec.module.g_a[0].weight.shape[0] == 8
    codec = distillkit.ImageCodec(model.codec, model.fingerprint)
    picture = distillkit.read_image(min(photographs.iterdir()))
    assert codec.decode(codec.encode(picture)).shape == picture.shape
    with pytest.raises(Interrupt):
        distillkit.train(decaying(), tmp_path / "killed", plugins=plugins, observers=[StopAfter(2)])
    assert same(weights(whole), weights(distillkit.train(decaying(), tmp_path / "killed", plugins=plugins)))
    control = decaying(extensions={}, initial_weights="teacher")
    assert not same(weights(whole), weights(distillkit.train(control, tmp_path / "control", plugins=plugins)))
    state = load_checkpoint(list_checkpoints(tmp_path / "whole" / "checkpoints")[-1])["task"]
    assert state["student.g_a.0.weight"].shape[0] == 16
    assert (state["student.g_a.0.weight"] == 0).flatten(1).all(1).sum() == 8


def test_it_goes_with_losses_and_an_average_of_the_weights(decaying, tmp_path, plugins):
    extensions = {"kd.mask_decay": {}, "core.ema": {"decay": 0.5}}
    r = decaying(extensions=extensions, losses={"feds.alignment": {}})
    model = distillkit.load_model(distillkit.train(r, tmp_path / "run", plugins=plugins), plugins)
    assert model.codec.module.g_a[0].weight.shape[0] == 8


def test_a_student_that_is_no_part_of_its_teacher_is_refused(recipe, tmp_path, plugins):
    pair = {"name": "models.swin"}
    data = {"train": recipe().data.train, "crop": 64, "batch_size": 1}
    first = recipe(pair=pair, trains="teacher", num_steps=1, schedule=CONSTANT, data=data)
    teacher = distillkit.train(first, tmp_path / "teacher", plugins=plugins)
    r = recipe(pair=pair, teacher=teacher, extensions={"kd.mask_decay": {}}, schedule=CONSTANT, data=data)
    with pytest.raises(RecipeError, match=r"recipe extensions.kd.mask_decay: expected a student that is a part of its"):
        distillkit.train(r, tmp_path / "run", plugins=plugins)
