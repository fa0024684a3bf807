"""Phases that change crop, batch, objective, trainable parts and the quantiser's surrogate; listed phases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import distillkit
import distillkit.testing
from distillkit.errors import DataError, PairError, RecipeError
from distillkit.training.phases import Phase, Ramp, Timeline
from distillkit.training.schedules import Listed
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve

from .test_training import same, weights

CHANGING = {
    "name": "core.phases",
    "phases": [
        {"name": "small", "share": 0.4, "weights": {"kd.latent": {"start": 1.0, "stop": 0.0}}, "surrogate": "noise"},
        {
            **{"name": "large", "share": 0.4, "crop": 128, "batch_size": 4, "learning_rate": 0.5},
            **{"surrogate": "rounding", "objective": {"name": "own.absolute"}, "lmbda": 0.02},
        },
        {"name": "decoder", "share": 0.2, "trainable": ["g_s.*"], "rd_weight": 0.5},
    ],
}


class Absolute(distillkit.Objective):
    usual_lmbdas = (0.1,)

    def distortion(self, x_hat, images):
        return 255 * (x_hat - images).abs().mean(dim=(1, 2, 3))


class Own:
    @distillkit.hookimpl
    def register_objectives(self, register):
        register("absolute", Absolute)


@pytest.fixture(scope="module")
def plugins():
    import tests.small_pair

    return distillkit.load_plugins(small=tests.small_pair, own=Own())


@pytest.fixture(scope="module")
def large_photographs(tmp_path_factory):
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("large")
    for index in range(3):
        coarse = Image.fromarray(generator.integers(0, 256, (10, 9, 3)).astype(np.uint8))
        coarse.resize((144, 160), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


COMMON = {"schedule": CHANGING, "losses": {"kd.latent": {}}, "log_every": 1, "checkpoint_every": 3}


class Watch:
    """The shapes of the batches, what stands for the quantiser, and the model after each step."""

    def __init__(self, stop_at=None):
        self.stop_at, self.models = stop_at, {}

    @distillkit.hookimpl
    def metrics_logged(self, run, metrics):
        self.models[metrics["step"]] = run.model.state_dict()

    @distillkit.hookimpl
    def checkpoint_saved(self, step):
        if step == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def changing(recipe, large_photographs, teacher_file):
    """A recipe whose second phase differs in all that a phase may change."""

    def build(**changes):
        data = {"train": large_photographs, "crop": 64, "batch_size": 2}
        return recipe(**COMMON | {"data": data, "teacher": teacher_file} | changes)

    return build


def test_each_phase_trains_as_it_says(changing, plugins, tmp_path, monkeypatch):
    seen = []
    task = distillkit.training.task.DistillationTask

    def forward(self, images, *args, real=task.forward, **kwargs):
        losses = real(self, images, *args, **kwargs)
        seen.append((tuple(images.shape), type(self.objective).__name__, self.lmbda, losses.rd.mse.item()))
        return losses

    monkeypatch.setattr(task, "forward", forward)
    watch = Watch()
    distillkit.train(changing(), tmp_path / "run", plugins=plugins, observers=[watch])
    shapes = [each[0] for each in seen]
    assert shapes == [(2, 3, 64, 64)] * 4 + [(4, 3, 128, 128)] * 4 + [(2, 3, 64, 64)] * 2
    assert [each[1:3] for each in seen[::4]] == [
        ("MeanSquaredError", 0.013),
        ("Absolute", 0.02),
        ("MeanSquaredError", 0.013),
    ]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["weight/kd.latent"] for line in lines[:3]] == pytest.approx([1, 2 / 3, 1 / 3])
    assert lines[4]["learning_rate"] < lines[3]["learning_rate"]
    moved = {
        name.partition(".")[0]
        for name, tensor in watch.models[10].items()
        if not torch.equal(tensor, watch.models[8][name]) and not name.endswith("quantiles")
    }
    assert moved == {"g_s"}


def test_crops_of_a_phase_are_all_new_and_of_its_size(changing, plugins):
    listed = [{"name": "a", "share": 0.5, "crop": 128, "batch_size": 3}, {"name": "b", "share": 0.5}]
    r = resolve(changing(schedule={"name": "core.phases", "phases": listed}, losses={}, teacher=None), plugins)
    setup = prepare(r, plugins)

    class One:
        rank, num = 0, 1

    samples = [n for stage in setup.stages for step in range(5) for n in stage.samples(step, One)]
    assert samples == list(range(5 * 3 + 5 * 2))
    assert [stage.dataset.crop for stage in setup.stages] == [128, 64]


@pytest.mark.parametrize("stop_at", [3, 6, 9])
def test_a_run_that_stopped_in_any_phase_continues_bit_for_bit(changing, plugins, tmp_path, stop_at):
    whole = distillkit.train(changing(), tmp_path / "whole", plugins=plugins)
    with pytest.raises(KeyboardInterrupt):
        distillkit.train(changing(), tmp_path / "run", plugins=plugins, observers=[Watch(stop_at)])
    assert same(weights(whole), weights(distillkit.train(changing(), tmp_path / "run", plugins=plugins)))


def test_the_file_names_the_objective_of_the_recipe(changing, plugins, tmp_path):
    model = distillkit.load_model(distillkit.train(changing(), tmp_path / "run", plugins=plugins), plugins)
    assert (model.objective["name"], model.lmbda) == ("core.mse", 0.013)


def run_twice(codec, train=True):
    codec.module.train(train)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [codec.forward(images) for _ in range(2)]


def codecs():
    from compressai.models import (
        Cheng2020AnchorCheckerboard,
        JointAutoregressiveHierarchicalPriors,
        MeanScaleHyperprior,
    )

    plugins = distillkit.load_plugins()
    light, config = plugins.configure("pair", "models.lowres", {"size": "tiny"}, "test")
    yield "mean-scale", MeanScaleHyperprior(8, 12)
    yield "serial", JointAutoregressiveHierarchicalPriors(8, 12)
    yield "checkerboard", Cheng2020AnchorCheckerboard(8)
    yield "lowres", light(config).build_student()
    gained, config = plugins.configure("pair", "models.lowres", {"size": "tiny", "gain_units": 2}, "test")
    yield "gained", gained(config).build_student()


@pytest.mark.parametrize("name", ["mean-scale", "serial", "checkerboard", "lowres", "gained"])
def test_surrogates(name):
    codec = distillkit.as_codec(dict(codecs())[name])
    state = {key: tensor.clone() for key, tensor in codec.module.state_dict().items()}
    own = run_twice(codec)
    expected = run_twice(codec, train=False)[0]
    for surrogate in ("rounding", "noise", "rounding"):
        codec.set_surrogate(surrogate)
        first, second = run_twice(codec)
        assert torch.equal(first.x_hat, second.x_hat) == (surrogate == "rounding")
        assert not torch.equal(first.likelihoods["y"], second.likelihoods["y"])  # the rate is estimated under noise
        assert torch.equal(run_twice(codec, train=False)[0].x_hat, expected.x_hat)
    codec.module.zero_grad()
    run_twice(codec)[0].x_hat.square().mean().backward()
    gradients = [parameter.grad for key, parameter in codec.module.named_parameters() if "g_a" in key]
    assert sum(gradient.abs().sum() > 0 for gradient in gradients) > len(gradients) / 3  # straight through
    codec.set_surrogate(None)
    again = run_twice(codec)
    assert torch.equal(*(each.x_hat for each in again)) == torch.equal(*(each.x_hat for each in own))
    assert codec.module.state_dict().keys() == state.keys()


def test_rounding_gives_the_decoder_what_it_has_in_eval_mode():
    codec = distillkit.as_codec(dict(codecs())["mean-scale"])
    codec.set_surrogate("rounding")
    assert torch.allclose(run_twice(codec)[0].x_hat, run_twice(codec, train=False)[0].x_hat, atol=1e-5)


def test_a_copy_has_the_surrogate_of_its_own():
    import copy

    codec = distillkit.as_codec(dict(codecs())["serial"])
    codec.set_surrogate("rounding")
    copied = copy.deepcopy(codec)
    codec.set_surrogate(None)
    assert torch.equal(*(each.x_hat for each in run_twice(copied)))
    assert not torch.equal(*(each.x_hat for each in run_twice(codec)))


class Stubborn(nn.Module):
    """Rounds by itself, whatever its entropy model does."""

    downsampling_factor = 16

    def __init__(self):
        from compressai.entropy_models import EntropyBottleneck

        super().__init__()
        self.g_a, self.g_s = nn.Conv2d(3, 4, 16, 16), nn.ConvTranspose2d(4, 3, 16, 16)
        self.entropy_bottleneck = EntropyBottleneck(4)

    def forward(self, x):
        y = self.g_a(x)
        _, likelihoods = self.entropy_bottleneck(y)
        return {"x_hat": self.g_s(y + (y.round() - y).detach()), "likelihoods": {"y": likelihoods}}

    def compress(self, x):
        raise NotImplementedError

    def decompress(self, strings, shape):
        raise NotImplementedError


class Plain(Stubborn):
    """Has no entropy model that is known."""

    def __init__(self):
        super().__init__()
        del self.entropy_bottleneck

    def forward(self, x):
        y = self.g_a(x)
        return {"x_hat": self.g_s(y), "likelihoods": {"y": torch.sigmoid(y)}}


class OddPair(distillkit.CodecPair):
    class Config(distillkit.ComponentConfig):
        known: bool = True

    def build_teacher(self):
        return self.build_student()

    def build_student(self):
        return Stubborn() if self.config.known else Plain()


class Odd:
    @distillkit.hookimpl
    def register_pairs(self, register):
        register("pair", OddPair)


def listed(**phase):
    return {"name": "core.phases", "phases": [{"name": "only", "share": 1.0} | phase]}


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (listed(weights={"a": -0.1}), RecipeError, "schedule: phases.0.weights.a"),
        (listed(rd_weight=-1), RecipeError, r"^recipe schedule: phases.0.rd_weight: expected .* 0, got -1\.$"),
        (
            listed(weights={"a": {"start": 1, "stop": -1}}),
            RecipeError,
            r"^[^\n]*weights.a.stop: expected .* 0, got -1\.$",
        ),
        (listed(weights={"a": float("nan")}), RecipeError, "schedule: phases.0.weights.a"),
        (
            listed(trainable=["g_x.*"]),
            RecipeError,
            r"phase 'only': trainable: no parameter .* fits 'g_x.\*'. Did you mean 'g_s'",
        ),
        (listed(trainable=[]), RecipeError, "phase 'only': trainable: expected a part that may be trained, got none"),
        (listed(crop=72), RecipeError, "phase 'only': expected a crop that is a multiple of 64, got 72"),
        (listed(crop=128), DataError, "phase 'only': crop of 128: .*at least 128"),
        (listed(batch_size=0), RecipeError, "phases.0.batch_size"),
        (listed(objective={"name": "core.ms_ssim"}, lmbda=16), RecipeError, "crops of at least 161 pixels .*, got 64"),
        (listed(objective={"name": "core.ms_sim"}), RecipeError, "phase 'only': objective: no objective 'core.ms_sim'"),
        (listed(objective={"mse": 1}), RecipeError, "phases.0.objective: expected a `name`"),
        (listed(lmbda={"low": 0.01, "high": 0.02}), RecipeError, "lmbda: expected one number, as the recipe's is"),
        (listed(lmbda=-1), RecipeError, "phases.0.lmbda: expected a number above 0"),
        (listed(surrogate="noisy"), RecipeError, "phases.0.surrogate"),
        (listed(crops=64), RecipeError, "phases.0.crops: unknown key. Did you mean 'crop'"),
        (listed(share=0.9), RecipeError, "core.phases: expected shares that add up to 1, got 0.9"),
        (
            {"name": "core.phases", "phases": [{"name": "a", "share": 0.5}] * 2},
            RecipeError,
            "two phases are called 'a'; rename one",
        ),
    ],
)
def test_what_cannot_be_done_is_an_error_before_the_first_step(recipe, plugins, tmp_path, schedule, error, message):
    with pytest.raises(error, match=message):
        distillkit.train(recipe(schedule=schedule), tmp_path / "run", plugins=plugins)
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_an_objective_of_another_unit_needs_its_lambda(recipe, plugins, tmp_path, photographs):
    data = {"train": photographs, "crop": 64, "batch_size": 2}
    schedule = listed(objective={"name": "core.ms_ssim"}, crop=192)
    with pytest.raises(RecipeError, match="phase 'only': lmbda: missing; its objective has another unit"):
        distillkit.train(recipe(schedule=schedule, data=data), tmp_path / "run", plugins=plugins)


@pytest.mark.parametrize(("known", "surrogate"), [(True, "noise"), (False, "noise"), (False, "rounding")])
def test_a_codec_that_cannot_is_refused(recipe, tmp_path, known, surrogate):
    plugins = distillkit.load_plugins(odd=Odd())
    odd = recipe(pair={"name": "odd.pair", "known": known}, schedule=listed(surrogate=surrogate))
    message = "still rounds in training" if known else "expected CompressAI's entropy models"
    with pytest.raises(PairError, match=f"phase 'only': surrogate: .*{message}"):
        distillkit.train(odd, tmp_path / "run", plugins=plugins)


def test_a_batch_that_cannot_be_cut_is_refused(recipe, plugins, tmp_path):
    schedule = listed(batch_size=3)
    with pytest.raises(RecipeError, match="phase 'only': batch_size: expected a multiple of 1 processes x accumulate"):
        distillkit.train(recipe(schedule=schedule, accumulate=2), tmp_path / "run", plugins=plugins)


@pytest.mark.parametrize("field", ["crop", "batch_size"])
def test_a_schedule_of_a_plugin_is_checked_likewise(field):
    with pytest.raises(RecipeError, match=f"phase 'a': expected a {field} of at least 1, got 0"):
        Timeline([Phase("a", 1, **{field: 0})], 1, [])
    with pytest.raises(RecipeError, match="phase 'a': expected a learning_rate above 0, got -1"):
        Timeline([Phase("a", 1, learning_rate=-1)], 1, [])


def test_listed_phases_are_a_schedule():
    options = {"phases": [{"name": "a", "share": 0.3, "weights": {"x.y": 0.5}}, {"name": "b", "share": 0.7}]}
    distillkit.testing.check_schedule(Listed, ["x.y"], **options)
    distillkit.testing.check_schedule(Listed, [], **options)
    phases = Listed(Listed.Config(phases=CHANGING["phases"])).phases(10, ["kd.latent"])
    assert [phase.num_steps for phase in phases] == [4, 4, 2]
    assert phases[0].weights == {"kd.latent": Ramp(1.0, 0.0, 3)}
    control = [phase.without_teacher([]) for phase in phases]
    assert [(phase.crop, phase.weights, phase.rd_weight) for phase in control] == [
        (None, {}, 1),
        (128, {}, 1),
        (None, {}, 1),
    ]
