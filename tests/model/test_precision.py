"""bfloat16 where the device is faster in it; float16 with scaled gradients."""

from __future__ import annotations

import json

import pytest
import torch

import distillkit
from distillkit.errors import RecipeError, TrainingError
from distillkit.model.precision import Precision, bf16_is_fast, bf16_time
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint
from tests.training.test_training import FEDS, same, weights

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "time", "expected"),
    [
        ({"avx2": True}, 0.5, False),
        ({"avx512_f": True}, 0.5, False),
        ({"avx512_bf16": True}, 0.5, True),
        ({"avx512_bf16": True}, 2.0, False),
        ({"bf16": True}, 0.5, True),
    ],
)
def test_a_cpu_needs_instructions_that_are_faster(monkeypatch, capabilities, time, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr("distillkit.model.precision.bf16_time", lambda device: time)
    assert bf16_is_fast(CPU) is expected


def test_the_time_is_measured_once_whatever_the_caller_computes_in(monkeypatch):
    bf16_time.cache_clear()
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        time = bf16_time(CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert 0 < time < 1000
    monkeypatch.setattr("distillkit.model.precision.perf_counter", None)
    assert bf16_time(CPU) == time


@pytest.mark.parametrize(
    ("fast", "choice", "used"),
    [(True, "auto", "bf16"), (False, "auto", "fp32"), (False, "bf16", "bf16"), (True, "fp16", "fp16")],
)
def test_what_a_run_takes(monkeypatch, fast, choice, used):
    monkeypatch.setattr("distillkit.model.precision.bf16_is_fast", lambda device: fast)
    notes = []
    precision = Precision(choice, CPU, notes)
    assert precision.name == used
    assert any("faster in fp32" in note for note in notes) == (choice == "bf16" and not fast)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for outer in (False, True):  # whatever the calling program computes in
        with torch.autocast("cpu", torch.bfloat16, enabled=outer), precision.autocast():
            assert torch.nn.Linear(2, 2)(torch.rand(1, 2)).dtype is dtypes[used]


def test_weights_that_move_are_cast_anew_in_an_outer_context():
    """Torch keeps what it cast until the outermost context ends."""
    layer, images, precision = torch.nn.Linear(2, 2), torch.ones(1, 2), Precision("bf16", CPU, [])
    with torch.autocast("cpu", torch.bfloat16):
        with precision.autocast():
            before = layer(images)
        with torch.no_grad():
            layer.weight += 1
        with precision.autocast():
            assert torch.allclose((layer(images) - before).float(), torch.tensor(2.0), atol=0.1)


@pytest.mark.slow
def test_a_run_in_float16_resumes_bit_for_bit(recipe, teacher_file, tmp_path, plugins):
    """Its scale starts too high for the first gradients, so steps are left out before it trains."""
    r = recipe(losses=FEDS, teacher=teacher_file, precision="fp16", lmbda=0.05, checkpoint_every=3)
    teacher_lmbda = distillkit.load_model(teacher_file, plugins).lmbda
    r = r.model_copy(update={"lmbda": teacher_lmbda})
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    states = [load_checkpoint(path) for path in list_checkpoints(tmp_path / "whole" / "checkpoints")]
    scales = [state["scaler"]["scale"] for state in states]
    assert scales[-1] < 65536
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["gradient_norm"] is not None for line in lines)
    assert lines[-1]["gradient_norm"] > 0

    class Stop:
        @distillkit.hookimpl
        def checkpoint_saved(self, step):
            if step == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distillkit.train(r, tmp_path / "parts", plugins=plugins, observers=[Stop()])
    parts = distillkit.train(r, tmp_path / "parts", plugins=plugins)
    assert same(weights(parts), weights(whole))


def test_float16_that_never_finds_a_finite_gradient_ends(recipe, tmp_path, plugins, monkeypatch):
    class Infinite(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.inf

    import distillkit.training.task

    original = distillkit.training.task.rate_distortion

    def cost(*args):
        losses = original(*args)
        return losses._replace(cost=Infinite.apply(losses.cost))

    monkeypatch.setattr(distillkit.training.task, "rate_distortion", cost)
    r = recipe(precision="fp16", num_steps=40, schedule={"name": "core.constant"}, log_every=10)
    with pytest.raises(TrainingError, match="the gradient was not finite at step"):
        distillkit.train(r, tmp_path / "run", plugins=plugins)


@pytest.mark.parametrize("device", ["cuda:7", "cuda", "mps"])
def test_a_device_that_is_not_there(recipe, tmp_path, plugins, device):
    if device != "cuda:7" and torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    with pytest.raises(RecipeError, match=rf"recipe device: expected a device of this machine, .*got '{device}"):
        distillkit.train(recipe(device=device), tmp_path / "run", plugins=plugins)
    with pytest.raises(RecipeError, match="recipe: device: string should match pattern"):
        recipe(device="gpu")
