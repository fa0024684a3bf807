"""Step extensions in real runs: when they are called, what they see, and that nothing of them is lost."""

from __future__ import annotations

import pytest
import torch

import distillkit
from distillkit.errors import CheckpointError, RecipeError
from distillkit.model.tensors import read_tensors
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint

from .test_training import Interrupt, StopAfter, same, weights

CONSTANT = {"name": "core.constant"}
ADAM = {"name": "adam", "learning_rate": 1e-3}


class Sums(distillkit.StepExtension):
    """Measures gradients, and writes down the order of its calls."""

    seen: list[tuple] = []  # noqa: RUF012 - shared by the runs of a test

    def after_backward(self, step):
        total = sum(float(p.grad.double().square().sum()) for p in self.codec.module.parameters() if p.grad is not None)
        Sums.seen.append(("backward", step, total))

    def after_step(self, step):
        Sums.seen.append(("step", step))


class Replaces(distillkit.StepExtension):
    def __init__(self, config, trained):
        super().__init__(config, trained)
        import copy

        self.codec = copy.deepcopy(trained.codec)


class Plugin:
    @distillkit.hookimpl
    def register_step_extensions(self, register):
        register("sums", Sums)
        register("replaces", Replaces)


@pytest.fixture
def extended():
    import tests.small_pair

    return distillkit.load_plugins(small=tests.small_pair, mine=Plugin())


def test_they_see_the_gradient_of_the_whole_batch_once_a_step(recipe, tmp_path, extended):
    found = {}
    for parts in (1, 2):
        Sums.seen = []
        r = recipe(
            pair={"name": "small.quiet"},
            num_steps=2,
            precision="fp32",
            accumulate=parts,
            extensions={"mine.sums": {}},
            schedule=CONSTANT,
            optimizer={"name": "sgd", "learning_rate": 1e-6},
        )
        distillkit.train(r, tmp_path / str(parts), plugins=extended)
        assert [call[:2] for call in Sums.seen] == [("backward", 0), ("step", 0), ("backward", 1), ("step", 1)]
        found[parts] = [call[2] for call in Sums.seen if call[0] == "backward"]
    assert found[1] == pytest.approx(found[2], rel=1e-3)


def test_ema_by_hand_and_saved(recipe, tmp_path, plugins):
    """decay = min(0.5, (1 + t) / (10 + t)): 2/11 and 3/12 in the second and third step."""
    base = {"num_steps": 3, "log_every": 1, "schedule": CONSTANT, "optimizer": ADAM}
    states = []

    class Keep:
        @distillkit.hookimpl
        def metrics_logged(self, run):
            states.append(run.model.state_dict()["g_a.0.weight"])

    plain = distillkit.train(recipe(**base), tmp_path / "plain", plugins=plugins, observers=[Keep()])
    saved = weights(
        distillkit.train(recipe(**base, extensions={"core.ema": {"decay": 0.5}}), tmp_path / "ema", plugins=plugins)
    )
    mean = states[0]
    for decay, weight in ((2 / 11, states[1]), (3 / 12, states[2])):
        mean = decay * mean + (1 - decay) * weight
    assert torch.allclose(saved["g_a.0.weight"], mean, atol=1e-7)
    assert not torch.equal(saved["g_a.0.weight"], weights(plain)["g_a.0.weight"])
    checkpoint = load_checkpoint(list_checkpoints(tmp_path / "ema" / "checkpoints")[-1])
    assert torch.equal(checkpoint["task"]["student.g_a.0.weight"], states[2])  # training itself is unchanged


def test_ema_is_resumed_bit_for_bit(recipe, tmp_path, plugins, held_out):
    r = recipe(
        num_steps=6,
        checkpoint_every=1,
        extensions={"core.ema": {"decay": 0.9}},
        validation={"data": held_out, "every": 2, "crops": 2},
    )
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "killed", plugins=plugins, observers=[StopAfter(3)])
    resumed = distillkit.train(r, tmp_path / "killed", plugins=plugins)
    assert same(weights(whole), weights(resumed))
    assert read_tensors(whole)[1]["validation"] == read_tensors(resumed)[1]["validation"]


def test_an_extension_that_comes_later_is_refused(recipe, tmp_path, plugins):
    distillkit.train(recipe(num_steps=2), tmp_path / "run", plugins=plugins)
    later = recipe(num_steps=2, extensions={"core.ema": {}})
    with pytest.raises(distillkit.DistillkitError, match=r"extensions.core.ema.decay: None there, 0.999 now"):
        distillkit.train(later, tmp_path / "run", plugins=plugins)


def test_a_checkpoint_without_its_state_is_refused(recipe, tmp_path, plugins, monkeypatch):
    r = recipe(num_steps=4, checkpoint_every=2, extensions={"core.ema": {}})
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(2)])
    monkeypatch.setattr("distillkit.training.trainer.Pace.load_state_dict", lambda self, state: state.pop("extensions"))
    with pytest.raises(CheckpointError, match="its checkpoint does not fit the recipe's components: 'core.ema'"):
        distillkit.train(r, tmp_path / "run", plugins=plugins)


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        ({"core.emma": {}}, "no extension 'core.emma' is registered.*Did you mean 'core.ema'"),
        ({"core.ema": {"decay": 1.5}}, "recipe extensions.core.ema: decay: .*less than 1, got 1.5"),
        ({"core": {"ema": {}}}, r"expected an extension's full name. In TOML it needs quotes: \[extensions.\"core.ema"),
        ({"core.ema": {}, "mine.replaces": {}}, "it replaces the codec that is trained; put it before core.ema"),
        ({"kd.mask_decay": {}}, "recipe teacher: missing, but kd.mask_decay needs one"),
    ],
)
def test_what_is_wrong_is_reported(extensions, message, recipe, tmp_path, extended):
    with pytest.raises(RecipeError, match=message):
        distillkit.train(recipe(extensions=extensions), tmp_path / "run", plugins=extended)
