"""The teacher's parts, compiled: hooks still hear, and a machine that cannot compile says so."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import distillkit
from distillkit.errors import TrainingError
from distillkit.model.precision import Precision
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.teaching.compiled import CompiledParts
from distillkit.training.teaching.teachers import Teachers
from tests.training.test_training import FEDS

compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")


@pytest.mark.slow
@compiler
def test_features_are_those_of_the_eager_teacher_up_to_rounding(recipe, teacher_file, plugins):
    r = resolve(recipe(losses=FEDS, teacher=teacher_file), plugins)
    setups = [prepare(r.model_copy(update={"compile_teacher": choice}), plugins) for choice in (False, True)]
    images = torch.rand(2, 3, 64, 64)
    weights = dict.fromkeys(FEDS, 1.0)
    fp32 = Precision("fp32", torch.device("cpu"), [])
    eager, compiled = (
        Teachers(setup, r.model_copy(update={"compile_teacher": choice}), torch.device("cpu"), fp32)
        for setup, choice in zip(setups, (False, True), strict=True)
    )
    expected, features = (each.teach(images, weights)["teacher"].taps for each in (eager, compiled))
    assert features.keys() == expected.keys()
    for role, tensor in expected.items():
        assert torch.allclose(features[role], tensor, rtol=1e-4, atol=1e-4 * tensor.abs().max().item())
    (note,) = [note for note in setups[1].notes if "compiled" in note]
    assert "parts are compiled when they first run" in note
    # Outside of a step the network is as it was.
    before, after = (dict(setup.task.pairs["teacher"].teacher.module.named_modules()) for setup in setups)
    assert all(("forward" in vars(module)) == ("forward" in vars(after[path])) for path, module in before.items())


def test_parts_lie_between_taps_and_entropy_models_stay(small_teacher):
    compiled = CompiledParts(small_teacher, ["g_a.2", "h_s"])
    named = {id(module): path for path, module in small_teacher.named_modules()}
    found = {named[id(module)] for module, _ in compiled._parts}
    assert found == {*(f"g_a.{index}" for index in range(7)), "g_s", "h_a", "h_s"}


@pytest.fixture
def small_teacher():
    from compressai.models import MeanScaleHyperprior

    return MeanScaleHyperprior(8, 8)


def test_a_machine_without_a_compiler_says_what_to_do(small_teacher, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    with (
        torch.no_grad(),
        pytest.raises(TrainingError, match="cannot be compiled on this machine.*set compile_teacher = false"),
        CompiledParts(small_teacher, ["g_a.2"]).active(),
    ):
        small_teacher(torch.rand(1, 3, 64, 64))
    assert all("forward" not in vars(module) for module in small_teacher.modules())


@pytest.mark.slow
def test_a_compiled_student_trains_as_an_eager_one_up_to_rounding(recipe, teacher_file, tmp_path, plugins, monkeypatch):
    """With the compiler's front end, which is where hooks and autocast could be in its way."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend="aot_eager", **options))
    r = recipe(losses=FEDS, teacher=teacher_file, num_steps=6, precision="bf16", log_every=1)
    rows = []
    for choice in ("none", "inductor"):
        distillkit.train(r.model_copy(update={"compile": choice}), tmp_path / choice, plugins=plugins)
        lines = (tmp_path / choice / "metrics.jsonl").read_text().splitlines()
        rows.append([json.loads(line)["rd_cost"] for line in lines])
    assert rows[1] == pytest.approx(rows[0], rel=2e-2)
