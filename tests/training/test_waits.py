"""Nothing in a training step makes the device wait between two lines of metrics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import distillkit
from distillkit.model.entropy_models import prepare_entropy_models
from distillkit.testing.waits import Waits
from distillkit.training.trainer import Trainer
from tests.own_code import OlderBottleneck, RoundingBottleneck
from tests.training.test_training import FEDS

KD = {name: {} for name in ("kd.output", "kd.latent", "kd.gaussian_kl", "kd.hint", "kd.masked_generative")}
CONSTANT = {"schedule": {"name": "core.constant"}, "num_steps": 6}


@pytest.fixture
def waits(monkeypatch):
    """Count what would wait in the steps of a run."""
    found, step = Waits(), Trainer._step

    def watched(*args, **kwargs):
        with found:
            return step(*args, **kwargs)

    monkeypatch.setattr(Trainer, "_step", watched)
    return found


def test_the_watch_sees_what_waits():
    with Waits() as waits:
        tensor = torch.ones(3) * torch.tensor(2.0)
        assert float(tensor[0]) == 2.0
        assert len(tensor[tensor > 1]) == 3
    assert waits.found == {"lift_fresh": 1, "_local_scalar_dense": 1, "nonzero": 1}


@pytest.mark.parametrize("optimizer", ["soap", "muon"])
def test_steps_with_feds(recipe, teacher_file, tmp_path, plugins, waits, optimizer):
    r = recipe(losses=FEDS, teacher=teacher_file, optimizer={"name": optimizer, "learning_rate": 1e-4}, num_steps=6)
    distillkit.train(r, tmp_path / "run", plugins=plugins)
    assert not waits.found


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_steps_with_other_losses_and_extensions(recipe, teacher_file, tmp_path, plugins, waits, optimizer):
    chosen = {"losses": KD, "extensions": {"core.ema": {}}, "optimizer": {"name": optimizer, "learning_rate": 1e-4}}
    distillkit.train(recipe(teacher=teacher_file, **chosen, **CONSTANT), tmp_path / "run", plugins=plugins)
    assert not waits.found


def test_steps_of_many_rates_and_in_parts(recipe, tmp_path, plugins, waits):
    many = {"pair": {"name": "small.gained"}, "lmbda": {"low": 0.002, "high": 0.05}, "accumulate": 2}
    distillkit.train(recipe(**many, **CONSTANT), tmp_path / "many", plugins=plugins)
    assert not waits.found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_torch_itself_finds_no_wait_on_a_gpu(recipe, teacher_file, tmp_path, plugins, monkeypatch):
    step = Trainer._step

    def watched(*args, **kwargs):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "_step", watched)
    optimizer = {"name": "muon", "learning_rate": 1e-4}
    r = recipe(losses=FEDS, teacher=teacher_file, optimizer=optimizer, device="cuda")
    distillkit.train(r, tmp_path / "run", plugins=plugins)


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (3, 4), (2, 4, 7)])
def test_an_entropy_bottleneck_gives_what_compressais_own_pass_gives(shape, training):
    from compressai.entropy_models import EntropyBottleneck

    theirs = EntropyBottleneck(4)
    ours = copy.deepcopy(theirs)
    prepare_entropy_models(ours)
    prepare_entropy_models(ours)
    latent = (3 * torch.randn(shape)).requires_grad_()
    results = []
    for model in (theirs, ours, copy.deepcopy(ours)):
        torch.manual_seed(0)
        values, likelihood = model(latent, training)
        (gradient,) = torch.autograd.grad(values.square().sum() - likelihood.log().sum(), latent)
        results.append((values, likelihood, gradient))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


@pytest.mark.parametrize("kind", [OlderBottleneck, RoundingBottleneck])
@pytest.mark.parametrize("training", [True, False])
def test_a_bottleneck_of_a_fork_gives_what_its_own_pass_gives(kind, training):
    theirs = kind(4)
    ours = copy.deepcopy(theirs)
    state = torch.get_rng_state()
    prepare_entropy_models(ours)
    assert torch.equal(torch.get_rng_state(), state)
    latent = 3 * torch.randn(2, 4, 3, 5)
    results = []
    for model in (theirs, ours):
        torch.manual_seed(0)
        results.append(model(latent, training))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_entropy_models_stay_in_float32_and_can_be_traced(plugins):
    from compressai.models import MeanScaleHyperprior

    codec = distillkit.CompressAIAdapter(MeanScaleHyperprior(8, 8)).module.train()
    images = torch.rand(1, 3, 64, 64)
    traced = torch.compile(codec, backend="eager", fullgraph=True)
    for call in (codec, traced):
        with torch.autocast("cpu", torch.bfloat16):
            output = call(images)
        assert all(each.dtype == torch.float32 for each in output["likelihoods"].values())
        assert output["x_hat"].dtype == torch.bfloat16


def test_a_step_of_muon_for_lite_takes_at_most_200_launches_on_a_gpu(plugins, monkeypatch):
    """Each operator that computes counts as one; torch's operators over lists are one launch for dozens of weights."""
    from distillkit.training.pace import muon

    pair_class, config = plugins.configure("pair", "models.cheng2020", {"size": "lite"}, "pair")
    student = distillkit.as_codec(pair_class(config).build_student()).module
    weights = [nn.Parameter(p.detach()) for n, p in student.named_parameters() if not n.endswith("quantiles")]
    filled_up = copy.deepcopy(weights)
    gradients = [torch.randn_like(weight) for weight in weights]
    launches = []
    own = muon._side
    for values, side in ((weights, own), (filled_up, lambda side, _: own(side, torch.device("cuda")))):
        monkeypatch.setattr(muon, "_side", side)
        optimizer = muon.Muon(values, 1e-3)
        for weight, gradient in zip(values, gradients, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()  # makes its state
        with Waits() as waits:
            optimizer.step()
        launches.append(waits.num_launches)
    assert launches[1] <= 200 < launches[0] <= 400
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights, filled_up, strict=True))
