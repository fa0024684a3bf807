"""Several teachers by name, each at any lambda; terms that ask for a teacher's output."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import distillkit
from distillkit.errors import CheckpointError, PairError, RecipeError
from distillkit.model.precision import Precision
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.teaching.teachers import Teachers

from .test_training import same, weights


class RateGap(distillkit.LossTerm):
    """How far the bits of the latent are from the teacher's, in nats an element."""

    needs_teacher_output = True

    def required_taps(self):
        return set()

    def forward(self, step):
        student, teacher = (each.likelihoods["y"].log() for each in (step.output, step.teacher_output))
        assert not teacher.requires_grad
        return (student.mean() - teacher.mean()).square()


@distillkit.hookimpl
def register_loss_terms(register):
    register("rate_gap", RateGap)


@pytest.fixture(scope="module")
def plugins():
    import tests.small_pair

    own = SimpleNamespace(register_loss_terms=register_loss_terms)
    return distillkit.load_plugins(small=tests.small_pair, own=own)


@pytest.fixture(scope="module")
def teachers(photographs, plugins, tmp_path_factory):
    """Two, of other lambdas and seeds; the one for low rates is narrower."""
    folder = tmp_path_factory.mktemp("teachers")

    def train(name, lmbda, seed, width):
        recipe = distillkit.Recipe.create(
            trains="teacher",
            pair={"name": "small.pair", "teacher_latent": width},
            num_steps=2,
            lmbda=lmbda,
            seed=seed,
            data={"train": photographs, "crop": 64, "batch_size": 2},
            device="cpu",
        )
        return distillkit.train(recipe, folder / name, plugins=plugins)

    return {"rate": train("rate", 0.0018, 1, 12), "picture": train("picture", 0.05, 2, 16)}


HYBRID = {
    "y": {"name": "kd.latent", "quantised": True, "teacher": "picture"},
    "z": {"name": "kd.hyper_latent", "quantised": True, "teacher": "rate"},
    "kd.output": {"teacher": "picture"},
}
PRIM = {"name": "core.constant", "weights": {"y": 0.2, "z": 0.2, "kd.output": 0.2}, "rd_weight": 0.4}


def test_each_term_compares_with_its_own_teacher(recipe, teachers, plugins):
    losses = HYBRID | {"own.rate_gap": {"teacher": "rate"}}
    r = resolve(recipe(losses=losses, teachers=teachers, schedule={"name": "core.constant"}), plugins)
    setup = prepare(r, plugins)
    device = torch.device("cpu")
    images = torch.rand(2, 3, 64, 64)
    taught = Teachers(setup, r, device, Precision("fp32", device, [])).teach(images, r.losses)
    setup.codec.module.eval()  # without noise
    losses = setup.task(images, taught, r.losses).terms
    codecs = {name: distillkit.load_model(file, plugins).codec for name, file in teachers.items()}

    def run(codec):
        y_hat, z_hat = [], []
        handles = [
            part.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
            for part, kept in ((codec.module.g_s, y_hat), (codec.module.h_s, z_hat))
        ]
        output = codec.forward(images)
        for handle in handles:
            handle.remove()
        return output, y_hat[0], z_hat[0]

    with torch.no_grad():
        student, rate, picture = run(setup.codec), run(codecs["rate"]), run(codecs["picture"])
        assert torch.equal(rate[2].frac(), rate[2].frac())
        assert float(losses["y"]) == pytest.approx(float((student[1] - picture[1]).square().mean()), rel=1e-5)
        z = setup.task.term("z").adapters("quantised_hyper_latent", student[2])
        assert float(losses["z"]) == pytest.approx(float((z - rate[2]).square().mean()), rel=1e-5)
        output = (student[0].x_hat - picture[0].x_hat).square().mean()
        assert float(losses["kd.output"]) == pytest.approx(float(output), rel=1e-5)
        bits = [each[0].likelihoods["y"].log().mean() for each in (student, rate)]
        assert float(losses["own.rate_gap"]) == pytest.approx(float((bits[0] - bits[1]).square()), rel=1e-4)
    assert picture[1].shape[1] == 16
    assert rate[1].shape[1] == 12


@pytest.mark.slow
def test_a_run_with_two_teachers_continues_bit_for_bit_and_knows_them_again(recipe, teachers, plugins, tmp_path):
    keys = {"losses": HYBRID, "schedule": PRIM, "num_steps": 6, "checkpoint_every": 3, "log_every": 1}

    class Stop:
        @distillkit.hookimpl
        def checkpoint_saved(self, step):
            if step == 3:
                raise KeyboardInterrupt

    whole = distillkit.train(recipe(**keys, teachers=teachers), tmp_path / "whole", plugins=plugins)
    files = {name: tmp_path / f"{name}.safetensors" for name in teachers}
    for name, file in files.items():
        file.write_bytes(teachers[name].read_bytes())
    with pytest.raises(KeyboardInterrupt):
        distillkit.train(recipe(**keys, teachers=files), tmp_path / "run", plugins=plugins, observers=[Stop()])
    files["rate"].write_bytes(teachers["picture"].read_bytes())
    with pytest.raises(CheckpointError, match="the weights of rate changed since the run began"):
        distillkit.train(recipe(**keys, teachers=files), tmp_path / "run", plugins=plugins)
    files["rate"].write_bytes(teachers["rate"].read_bytes())
    resumed = distillkit.train(recipe(**keys, teachers=files), tmp_path / "run", plugins=plugins)
    assert same(weights(whole), weights(resumed))
    control = distillkit.train(recipe(**keys | {"losses": {}}), tmp_path / "control", plugins=plugins)
    assert not same(weights(whole), weights(control))


def test_one_teacher_serves_every_lambda_but_for_a_ranking(recipe, teachers, plugins, tmp_path):
    for lmbda in (0.0018, 0.013):
        r = recipe(teacher=teachers["picture"], losses={"kd.output": {}}, schedule={"name": "core.constant"})
        r = r.model_copy(update={"lmbda": lmbda, "num_steps": 1})
        assert distillkit.train(r, tmp_path / f"{lmbda}", plugins=plugins).is_file()
    ranked = recipe(
        teachers=teachers | {"more": teachers["rate"]},
        losses={
            "kd.output": {"teacher": "rate"},
            "a": {"name": "feds.channel_entropy", "teacher": "picture"},
            "b": {"name": "kd.latent", "teacher": "more"},
        },
        schedule={"name": "core.constant"},
    )
    message = (
        "recipe teachers.picture: the teacher was trained for lmbda 0.05, this run is for 0.013, and what losses.a "
    )
    with pytest.raises(PairError, match=message):
        distillkit.train(ranked, tmp_path / "run", plugins=plugins)
    own = {"a": {"name": "feds.channel_entropy", "calibration_crops": 2}}
    r = recipe(teacher=teachers["picture"], losses=own, schedule={"name": "core.constant"}, lmbda=0.05, num_steps=1)
    assert distillkit.train(r, tmp_path / "own", plugins=plugins).is_file()


LATENT = {"name": "kd.latent"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"a": LATENT | {"teacher": "pictur"}}}, "losses.a: teacher: no teacher 'pictur' .*mean 'picture'"),
        ({"losses": {"a": LATENT}}, 'losses.a: expected one of the teachers, got none; add teacher = "picture"'),
        ({"losses": {"a": LATENT | {"teacher": "rate"}}}, 'teachers.picture: no loss names it; .*teacher = "picture"'),
        ({"losses": {"a": LATENT | {"teacher": 3}}}, "losses.a: teacher: no teacher 3 in the recipe"),
        ({"teachers": {"teacher": "x"}, "losses": {"a": LATENT}}, "teachers.teacher: this is the name of the teacher"),
        ({"trains": "teacher"}, "'teacher' is trained without another teacher"),
        ({"teachers": {}, "teacher": "x"}, "recipe teacher: nothing in the recipe needs it"),
        ({"initial_weights": "teacher", "losses": HYBRID}, 'teacher: missing, but initial_weights = "teacher"'),
        ({"teachers": {"rate": 3}}, "teachers.rate"),
        ({"teachers": {"rate": "x", "Rate": "y"}}, "teachers: 'rate' and 'Rate' differ only in case; rename one"),
        ({"losses": {"a": LATENT | {"teacher": "rate"}, "A": LATENT | {"teacher": "picture"}}}, "'a' and 'A'"),
        ({"losses": {"kd.hint": LATENT | {"teacher": "rate"}}}, "losses.kd.hint: .* is the name of another loss"),
    ],
)
def test_names_that_do_not_fit(recipe, teachers, plugins, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        distillkit.train(recipe(**{"teachers": teachers} | changes), tmp_path / "run", plugins=plugins)
    assert not (tmp_path / "run").exists()


def test_a_file_names_teachers_relative_to_its_folder(teachers, tmp_path, photographs):
    file = tmp_path / "deep" / "recipe.toml"
    file.parent.mkdir()
    file.write_text(
        f'num_steps = 1\npair = {{name = "small.pair"}}\ndata = {{train = "{photographs}"}}\n'
        'teachers = {rate = "low.safetensors"}\n[losses."kd.latent"]\nteacher = "rate"\n'
    )
    assert distillkit.Recipe.load(file).teachers == {"rate": tmp_path / "deep" / "low.safetensors"}
