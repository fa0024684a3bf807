"""Stages of the student inside a frozen teacher: where gradients go, what stays, and a run that replaces stages."""

from __future__ import annotations

import json

import pytest
import torch

import distillkit
from distillkit.errors import PairError, RecipeError
from distillkit.model.adapters import fingerprint
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint
from distillkit.training.setup.teachers import control_of

from .test_forcing import bound, images
from .test_training import Interrupt, StopAfter, same, weights

PROGRESSIVE = {"name": "kd.progressive", "stages": ["g_s", ["g_a", "h_a", "entropy_bottleneck", "h_s"]], "share": 0.5}


@pytest.fixture
def pair(plugins):
    return bound(plugins)


def test_gradient_reaches_the_students_stage_alone_and_the_teacher_is_as_it_was(pair):
    before = fingerprint(pair.teacher.module)
    pair.student.module.train()
    output, features = pair.graft(images(), ["g_a"], ["analysis.1/4"])
    rd = distillkit.rate_distortion(output, images(), 0.01)
    rd.cost.backward()
    reached = {name for name, each in pair.student.module.named_parameters() if each.grad is not None}
    assert reached == {name for name, _ in pair.student.module.named_parameters() if name.startswith("g_a.")}
    assert all(bool(each.grad.abs().sum() > 0) for each in pair.student.module.g_a.parameters())
    assert all(each.grad is None for each in pair.teacher.module.parameters())
    assert features["analysis.1/4"].shape == (2, 8, 16, 16)  # of the student's width
    assert fingerprint(pair.teacher.module) == before
    assert not any(module.training for module in pair.teacher.module.modules())
    assert pair.student.module.training


def test_the_output_is_the_teachers_but_for_the_stage(pair):
    """With the teacher's own weights in the stage it is the teacher's; the synthesis runs behind the latent."""
    from compressai.models import MeanScaleHyperprior

    twin = distillkit.bind(pair.teacher, MeanScaleHyperprior(16, 16), (64, 64))
    twin.student.module.load_state_dict(pair.teacher.module.state_dict())

    def output(stages):
        torch.manual_seed(1)  # of the quantisation's noise
        with torch.no_grad():
            return twin.graft(images(), stages)[0].x_hat

    assert torch.equal(output([]), output(["g_a", "h_s", "g_s"]))
    before = output(["g_s.2"])
    with torch.no_grad():
        twin.student.module.g_s[2].weight.mul_(2)
    assert not torch.equal(output(["g_s.2"]), before)
    assert torch.equal(output(["g_s.4"]), before)


def test_running_statistics_and_dropout_of_the_teacher_are_left_alone(pair):
    pair.teacher.module.g_a.append(torch.nn.BatchNorm2d(16)).append(torch.nn.Dropout(0.5))
    pair.teacher.module.eval().requires_grad_(False)
    before = fingerprint(pair.teacher.module)
    pair.graft(images(), ["g_s"])
    assert fingerprint(pair.teacher.module) == before


def test_an_error_leaves_the_teacher_whole(pair):
    own = pair.teacher.module.g_a
    with pytest.raises(RuntimeError):
        pair.graft(images(), ["g_a", "g_s.0"])  # the student's g_s.0 has fewer channels than the teacher's g_s.1
    assert pair.teacher.module.g_a is own
    assert not pair.teacher.module.training
    with pytest.raises(PairError, match=r"graft: the teacher, .*, has no stage 'g_x'\. Did you mean 'g_"):
        pair.graft(images(), ["g_x"])


@pytest.fixture
def progressive(recipe, teacher_file):
    def build(**changes):
        values = {
            "teacher": teacher_file,
            "schedule": PROGRESSIVE,
            "num_steps": 8,
            "checkpoint_every": 1,
            "log_every": 1,
        }
        return recipe(**values | {"optimizer": {"name": "adam", "learning_rate": 1e-3}} | changes)

    return build


@pytest.mark.slow
def test_a_run_replaces_stage_after_stage_and_resumes_bit_for_bit(progressive, tmp_path, plugins):
    run = tmp_path / "whole"
    states = {}

    class Keep:
        @distillkit.hookimpl
        def checkpoint_saved(self, run, step, path):
            states[step] = load_checkpoint(path)["task"]

    whole = distillkit.train(progressive(), run, plugins=plugins, observers=[Keep()])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == 2 * ["replace 1"] + 2 * ["replace 2"] + 4 * ["alone"]

    def moved(first, last):
        return {
            name.split(".")[1] for name in states[first] if not torch.equal(states[first][name], states[last][name])
        }

    assert moved(1, 2) == {"g_s"}
    assert moved(2, 4) == {"g_s", "g_a", "h_a", "h_s", "entropy_bottleneck"}
    assert moved(4, 8) == moved(2, 4)
    for killed_after in (1, 3):
        folder = tmp_path / f"killed-{killed_after}"
        with pytest.raises(Interrupt):
            distillkit.train(progressive(), folder, plugins=plugins, observers=[StopAfter(killed_after)])
        assert same(weights(whole), weights(distillkit.train(progressive(), folder, plugins=plugins)))
    assert distillkit.load_model(whole, plugins).part == "student"
    assert list_checkpoints(run / "checkpoints")


def test_losses_wait_for_the_student_or_see_the_output_of_both(progressive, tmp_path, plugins):
    model = distillkit.train(progressive(losses={"feds.alignment": {}}), tmp_path / "run", plugins=plugins)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["loss/feds.alignment" in line for line in lines] == 4 * [False] + 4 * [True]
    assert model.exists()
    phases = [
        {"name": "in", "share": 0.5, "graft": ["g_s"], "weights": {"kd.output": 1}, "balance": 1},
        {"name": "out", "share": 0.5},
    ]
    listed = progressive(schedule={"name": "core.phases", "phases": phases}, losses={"kd.output": {}}, num_steps=2)
    assert distillkit.train(listed, tmp_path / "listed", plugins=plugins).exists()


def test_without_a_teacher_the_student_trains_alone(progressive, tmp_path, plugins):
    """The control: the same phases, in which all of the student is trained."""
    control = progressive(teacher=None, num_steps=4)
    distillkit.train(control, tmp_path / "control", plugins=plugins)
    assert control_of(progressive(), plugins).schedule.name == "core.constant"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"stages": ["g_t"]}, RecipeError, r"phase 'replace 1': graft: .* has no stage 'g_t' to train"),
        ({"stages": []}, RecipeError, "expected at least one stage"),
        ({"share": 1}, RecipeError, "share: .*less than 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(progressive, tmp_path, plugins, changes, error, message):
    with pytest.raises(error, match=message):
        distillkit.train(progressive(schedule=PROGRESSIVE | changes), tmp_path / "run", plugins=plugins)


def test_latents_of_other_widths_are_refused(progressive, tmp_path, plugins):
    narrow = progressive(pair={"name": "small.pair", "student_latent": 12})
    with pytest.raises(PairError, match=r"phase 'replace 1': graft: expected stages that take and return what"):
        distillkit.train(narrow, tmp_path / "run", plugins=plugins)
