"""A student that starts from its teacher's weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import distillkit
from distillkit.errors import RecipeError
from distillkit.model.file import save_model
from distillkit.model.initialise import inherit_weights
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from tests.small_pair import SmallPair

NO_LATENT = torch.zeros(0)


def nets(widths, shuffle=False):
    """A sequence of convolutions; with `shuffle`, the last one doubles the resolution."""
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        last = shuffle and i == len(widths) - 3
        layers += [nn.Conv2d(a, b * (4 if last else 1), 3, padding=1)] + ([nn.PixelShuffle(2)] if last else [])
        layers.append(nn.LeakyReLU())
    return nn.Sequential(*layers)


def silence(net, dead):
    """Make channels `dead` of every hidden width of size 6 carry nothing."""
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                for axis, size in enumerate(layer.weight.shape[:2]):
                    index = dead if size == 6 else [4 * c + k for c in dead for k in range(4)] if size == 24 else []
                    layer.weight.index_fill_(axis, torch.tensor(index, dtype=torch.long), 0)
                    if axis == 0:
                        layer.bias.index_fill_(0, torch.tensor(index, dtype=torch.long), 0)


@pytest.mark.parametrize("shuffle", [False, True])
def test_dropping_dead_channels_changes_nothing(shuffle):
    torch.manual_seed(0)
    teacher, student = nets([3, 6, 6, 6, 3], shuffle), nets([3, 4, 4, 4, 3], shuffle)
    silence(teacher, [1, 4])
    result = inherit_weights(student, teacher, NO_LATENT)
    assert result.kept == ()
    assert result.share == 1
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(student(images), teacher(images))


def test_equal_networks_are_copied():
    torch.manual_seed(0)
    teacher, student = nets([3, 6, 3]), nets([3, 6, 3])
    result = inherit_weights(student, teacher, NO_LATENT)
    assert result.sliced == result.kept == ()
    for a, b in zip(student.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a is not b


def test_layers_that_were_left_out_shift_nothing():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.Conv2d(4, 4, 3), nn.Linear(4, 4))
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 4))
    result = inherit_weights(student, teacher, NO_LATENT)
    assert result.kept == ()
    assert torch.equal(student[1].weight, teacher[2].weight)
    assert torch.equal(student[2].weight, teacher[3].weight)


def test_the_middle_of_a_larger_kernel_is_taken():
    teacher, student = nn.Conv2d(1, 1, 5, bias=False), nn.Conv2d(1, 1, 3, bias=False)
    with torch.no_grad():
        teacher.weight.copy_(torch.arange(25.0).view(1, 1, 5, 5))
    inherit_weights(student, teacher, NO_LATENT)
    assert student.weight.flatten().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]


def test_the_latent_is_ranked_by_its_bits():
    torch.manual_seed(0)
    teacher, student = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)
    inherit_weights(student, teacher, torch.tensor([0.1, 3.0, 0.2, 5.0]))
    assert torch.equal(student.weight, teacher.weight[[3, 1]])
    assert torch.equal(student.bias, teacher.bias[[3, 1]])


def test_what_is_larger_in_the_student_stays_random():
    torch.manual_seed(0)
    teacher, student = nets([3, 6, 3]), nets([3, 8, 3])
    before = [parameter.clone() for parameter in student.parameters()]
    result = inherit_weights(student, teacher, NO_LATENT)
    assert result.kept == ("0.weight", "0.bias", "2.weight")  # the last layer's bias has 3 values in both
    assert [torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True)] == [True, True, True, False]
    assert "random: 0.weight" in str(result)


def test_many_that_stay_random_are_counted_by_part():
    teacher, student = (nn.ModuleDict({"g_a": nets(w), "g_s": nets(w)}) for w in ([3, 6, 6, 6], [3, 8, 8, 8]))
    assert str(inherit_weights(student, teacher, NO_LATENT)).endswith("random: 6 in g_a, 6 in g_s")


@pytest.mark.parametrize("losses", [{}, {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}])
def test_in_a_run(recipe, teacher_file, tmp_path, plugins, losses):
    heir = recipe(initial_weights="teacher", teacher=teacher_file, losses=losses, num_steps=3, checkpoint_every=2)
    told = []

    class Listen:
        @distillkit.hookimpl
        def run_started(self, run):
            told.extend(run.notes)

    distillkit.train(heir, tmp_path / "run", plugins=plugins, observers=[Listen()])
    assert any("of the parameters are taken over" in note for note in told), told


def test_a_run_measures_the_bits_of_the_latents_channels(recipe, tmp_path, plugins):
    teacher, bias = SmallPair(SmallPair.Config()).build_teacher(), torch.randperm(16).float()
    with torch.no_grad():  # channel c is always bias[c], coded with mean 0 and scale 4: the larger, the more bits
        for layer in (teacher.g_a[-1], teacher.h_s[-1]):
            layer.weight.zero_()
            layer.bias.zero_()
        teacher.g_a[-1].bias.copy_(bias)
        teacher.h_s[-1].bias[:16] = 4
    file = tmp_path / "teacher.safetensors"
    save_model(file, distillkit.CompressAIAdapter(teacher), "small.pair", {}, "teacher", 0.013)
    narrow = {"name": "small.pair", "student_latent": 8}
    heir = resolve(recipe(pair=narrow, initial_weights="teacher", teacher=file, losses={}), plugins)
    student = prepare(heir, plugins).codec.module
    assert student.g_a[-1].bias.tolist() == [15, 14, 13, 12, 11, 10, 9, 8]


def test_crops_that_the_teacher_cannot_take(recipe, tmp_path):
    import tests.foreign_codecs as foreign

    plugins = distillkit.load_plugins(foreign=foreign)
    file = tmp_path / "teacher.safetensors"
    save_model(file, distillkit.CompressAIAdapter(foreign.Wide(16, 16)), "foreign.wide", {}, "teacher", 0.013)
    heir = recipe(pair={"name": "models.compressai"}, initial_weights="teacher", teacher=file, losses={})
    with pytest.raises(RecipeError, match="data.crop: expected a multiple of 256, got 64"):
        prepare(resolve(heir, plugins), plugins)


def test_it_needs_a_teacher(recipe, plugins):
    with pytest.raises(RecipeError, match='recipe teacher: missing, but initial_weights = "teacher"'):
        resolve(recipe(initial_weights="teacher", losses={}, teacher=None), plugins)
    with pytest.raises(RecipeError, match="recipe trains"):
        resolve(recipe(initial_weights="teacher", trains="teacher", losses={}, teacher=None), plugins)
