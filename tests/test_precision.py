"""bfloat16 where the device computes in it."""

from __future__ import annotations

import pytest
import torch

from distillkit.precision import bf16_is_fast


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"bf16": True}, True)],
)
def test_a_cpu_needs_the_instructions(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert bf16_is_fast(torch.device("cpu")) is expected


@pytest.mark.parametrize(
    ("fast", "precision", "used"), [(True, "auto", "bf16"), (False, "auto", "no"), (False, "bf16", "bf16")]
)
def test_what_a_run_takes(monkeypatch, recipe, tmp_path, plugins, fast, precision, used):
    import distillkit.precision
    import distillkit.trainer

    monkeypatch.setattr(distillkit.precision, "bf16_is_fast", lambda device: fast)
    seen, notes = [], []
    accelerator = distillkit.trainer.Accelerator
    monkeypatch.setattr(
        distillkit.trainer, "Accelerator", lambda **options: seen.append(options) or accelerator(**options)
    )

    class Listen:
        @distillkit.hookimpl
        def run_started(self, run):
            notes.extend(run.notes)

    one = recipe(precision=precision, num_steps=1, schedule={"name": "core.constant"})
    distillkit.train(one, tmp_path, plugins=plugins, observers=[Listen()])
    assert [options["mixed_precision"] for options in seen] == [used]
    assert any("emulates" in note for note in notes) == (precision == "bf16" and not fast)
