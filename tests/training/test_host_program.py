"""`train` inside a program that has an Accelerator, a process group, or contexts of its own."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

import distillkit
from tests.training.test_training import FEDS, same, weights


@pytest.fixture
def run(recipe, teacher_file, tmp_path, plugins):
    """Train a student with distillation and return its weights."""

    def train(name, **changes):
        r = recipe(losses=FEDS, teacher=teacher_file, num_steps=5, **changes)
        return weights(distillkit.train(r, tmp_path / name, plugins=plugins))

    return train


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_callers_contexts_change_nothing(run, precision):
    expected = run("plain", precision=precision)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert same(run("inside", precision=precision), expected)
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert same(run("inference", precision=precision), expected)


def test_after_an_accelerator_which_stays_as_it_was(run):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    expected = run("plain", precision="fp32")
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    try:
        layer = accelerator.prepare(torch.nn.Linear(2, 2))
        assert same(run("inside", precision="fp32"), expected)
        assert accelerator.mixed_precision == "bf16"
        assert accelerate.Accelerator(cpu=True).device == accelerator.device
        accelerator.backward(layer(torch.rand(1, 2)).sum())
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_in_a_process_group_which_stays(run, tmp_path):
    expected = run("plain")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert same(run("inside"), expected)
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
