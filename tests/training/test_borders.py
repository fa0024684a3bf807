"""A run says so if its crops have no inside to some convolutions."""

from __future__ import annotations

import pytest
import torch
from compressai.models import JointAutoregressiveHierarchicalPriors, MeanScaleHyperprior
from PIL import Image

import distillkit
from distillkit.model.adapters import as_codec
from distillkit.training.setup.borders import border_notes

from ..golden.make import picture


@pytest.mark.parametrize("architecture", [MeanScaleHyperprior, JointAutoregressiveHierarchicalPriors])
def test_small_crops_have_no_inside_to_zero_padded_hyper_priors(architecture):
    codec = as_codec(architecture(8, 12).train())
    codec.module.g_a.eval()
    random = torch.get_rng_state()
    hooks = sum(len(layer._forward_pre_hooks) for layer in codec.module.modules())
    (note,) = border_notes(codec, 128)
    assert "(h_s.0)" in note
    assert "(h_a.4, h_s.0, h_s.2)" in border_notes(codec, 64)[0]
    assert border_notes(codec, 256) == []
    assert torch.equal(torch.get_rng_state(), random)
    assert codec.module.training
    assert not codec.module.g_a.training
    assert hooks == sum(len(layer._forward_pre_hooks) for layer in codec.module.modules())


@pytest.mark.parametrize("name", ["lowres", "cheng2020", "swin"])
def test_pairs_that_ship_learn_from_small_crops(name, plugins):
    pair, config = plugins.configure("pair", f"models.{name}", {"size": "tiny"}, "test")
    for codec in (pair(config).build_teacher(), pair(config).build_student()):
        assert border_notes(as_codec(codec), 128) == []


def test_a_codec_of_many_rates_is_looked_at(plugins):
    assert "h_s.0" in border_notes(distillkit.GainedCodec(MeanScaleHyperprior(8, 12)), 64)[0]


def test_a_run_says_so(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture(1, 160, 160)).save(tmp_path / "photos" / "a.png")
    pair = {"name": "models.compressai", "student": {"architecture": "mbt2018-mean", "N": 8, "M": 8}}
    data = {"train": tmp_path / "photos", "crop": 128, "batch_size": 1}
    notes: list[str] = []

    class Listen:
        @distillkit.hookimpl
        def run_started(self, run):
            notes.extend(run.notes)

    recipe = distillkit.Recipe.create(pair=pair, data=data, num_steps=1, lmbda=0.013)
    distillkit.train(recipe, tmp_path / "run", observers=[Listen()])
    assert any("inside of a picture" in note for note in notes)
