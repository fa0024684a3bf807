"""Teacher forcing: what follows the student's analysis takes the teacher's latent, and losses train the analysis."""

from __future__ import annotations

import json

import pytest
import torch

import distillkit
from distillkit.errors import PairError, RecipeError

from .test_training import Interrupt, StopAfter, same, weights

FORCED = {"name": "forced", "share": 0.5, "weights": {"kd.latent": 1}, "teacher_forcing": True}


def bound(plugins, name="small.pair", **config):
    pair_class, config = plugins.configure("pair", name, config, "test")
    torch.manual_seed(0)
    made = pair_class(config)
    return distillkit.bind(made.build_teacher(), made.build_student(), (64, 64), plugins=plugins)


def images(seed=0):
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_what_follows_the_analysis_takes_the_teachers_latent_and_the_tap_holds_the_students_own(plugins):
    pair = bound(plugins)
    latent = 9 * torch.randn(2, 16, 4, 4)
    pair.student.module.eval()
    roles = ["latent", "quantised_latent"]
    own = pair.run_student_alone(images(), roles)[1]
    forced = pair.run_student_alone(images(), roles, None, latent)[1]
    assert torch.equal(forced["latent"], own["latent"])
    assert (forced["quantised_latent"] - latent).abs().max() <= 0.5 + 1e-4
    assert torch.equal(pair.run_student_alone(images(), roles)[1]["quantised_latent"], own["quantised_latent"])


def test_the_rate_distortion_cost_trains_all_but_the_analysis(plugins):
    pair = bound(plugins)
    output, taps = pair.run_student_alone(images(), ["latent"], None, torch.randn(2, 16, 4, 4))
    distillkit.rate_distortion(output, images(), 0.01).cost.backward()
    module = pair.student.module
    assert all(each.grad is None for each in module.g_a.parameters())
    for part in (module.g_s, module.h_a, module.h_s):
        assert all(bool(each.grad.abs().sum() > 0) for each in part.parameters())
    taps["latent"].square().mean().backward()
    assert all(bool(each.grad.abs().sum() > 0) for each in module.g_a.parameters())


def test_a_codec_that_runs_image_by_image_takes_one_latent_after_the_other(plugins):
    pair = bound(plugins, "small.gained")
    pair.student.module.eval()
    given = images(), ["quantised_latent"], torch.tensor([0.1, 0.9]), 9 * torch.randn(2, 16, 4, 4)
    together = pair.run_student_alone(*given)[1]["quantised_latent"]
    pair.student.mixes_qualities = False
    assert torch.allclose(pair.run_student_alone(*given)[1]["quantised_latent"], together, atol=1e-5)
    assert together.abs().max() > 9


@pytest.fixture
def forced(recipe, teacher_file):
    def build(*changes, losses=("kd.latent",), pair=None):
        phases = [FORCED | dict(changes), {"name": "alone", "share": 0.5}]
        return recipe(
            teacher=teacher_file,
            losses={name: {} for name in losses},
            schedule={"name": "core.phases", "phases": phases},
            num_steps=6,
            checkpoint_every=1,
            log_every=1,
            optimizer={"name": "adam", "learning_rate": 1e-3},
            **({"pair": pair} if pair else {}),
        )

    return build


def test_a_run_resumes_bit_for_bit_in_the_forced_phase_and_after_it(forced, tmp_path, plugins):
    whole = distillkit.train(forced(), tmp_path / "whole", plugins=plugins)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == 3 * ["forced"] + 3 * ["alone"]
    assert ["loss/kd.latent" in line for line in lines] == 3 * [True] + 3 * [False]
    plain = distillkit.train(forced(("teacher_forcing", False)), tmp_path / "plain", plugins=plugins)
    assert not same(weights(whole), weights(plain))
    for killed_after in (2, 4):
        folder = tmp_path / f"killed-{killed_after}"
        with pytest.raises(Interrupt):
            distillkit.train(forced(), folder, plugins=plugins, observers=[StopAfter(killed_after)])
        assert same(weights(whole), weights(distillkit.train(forced(), folder, plugins=plugins)))


@pytest.mark.parametrize(
    ("changes", "losses", "message"),
    [
        ([("weights", {"kd.output": 1})], ["kd.output"], "expected a loss that compares the latents"),
        ([("every", 2)], ["kd.latent"], "with every = 2"),
        ([("weights", {"kd.latent": {"start": 1, "stop": 0}})], ["kd.latent"], "keep its weight above 0"),
        ([("graft", ["g_s"])], ["kd.latent"], "expected a phase without `graft`"),
    ],
)
def test_a_phase_that_cannot_be_forced_is_refused_before_the_first_step(
    changes, losses, message, forced, tmp_path, plugins
):
    with pytest.raises(RecipeError, match=f"phase 'forced': teacher_forcing: .*{message}"):
        distillkit.train(forced(*changes, losses=losses), tmp_path / "run", plugins=plugins)


def test_latents_of_other_widths_are_refused(forced, tmp_path, plugins):
    pair = {"name": "small.pair", "student_latent": 8}
    with pytest.raises(
        PairError, match=r"phase 'forced': teacher forcing: .*\(16, 4, 4\) from the teacher and \(8, 4, 4\)"
    ):
        distillkit.train(forced(pair=pair), tmp_path / "run", plugins=plugins)


def test_the_control_has_the_same_phases_with_its_own_latents(forced, tmp_path, plugins):
    phase = distillkit.Phase("forced", 3, {"kd.latent": 1.0}, teacher_forcing=True, rd_weight=0.5)
    alone = phase.without_teacher([])
    assert not alone.teacher_forcing
    assert alone.num_steps == 3
    assert alone.rd_weight == 1.0  # the rate-distortion cost takes the place of the loss
    run = forced()
    control = run.model_copy(update={"losses": {}, "teacher": None})
    lines = distillkit.train(control, tmp_path / "run", plugins=plugins).parent / "metrics.jsonl"
    assert [json.loads(line)["phase"] for line in lines.read_text().splitlines()] == 3 * ["forced"] + 3 * ["alone"]
