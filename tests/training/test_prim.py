"""PRIM as it ships: two teachers, the student of one, the hybrid of both, and the control, end to end in few steps."""

from __future__ import annotations

import json

import pytest

import distillkit
from distillkit.recipe.shipped import write_shipped
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve

from .test_training import same, weights

SMALL = {"architecture": "bmshj2018-hyperprior", "N": 8, "M": 12}


@pytest.mark.slow
def test_the_recipes_run(photographs, tmp_path, plugins):
    files = {path.stem: path for path in write_shipped("prim-tiny", tmp_path)}
    assert set(files) == {"teacher", "teacher-rate", "student", "student-hybrid"}
    models = {}
    for name in ("teacher", "teacher-rate", "student", "student-hybrid"):
        shipped = distillkit.Recipe.load(files[name])
        small = {
            "num_steps": 3,
            "log_every": 1,
            "device": "cpu",
            "pair": {"name": "models.compressai", "teacher": SMALL, "student": SMALL | {"N": 4}},
            "data": {"train": photographs, "crop": 64, "batch_size": 2},
        }
        keys = shipped.model_dump(mode="json", exclude_none=True) | small
        models[name] = distillkit.train(distillkit.Recipe.create(**keys), tmp_path / "runs" / name, plugins=plugins)
        if name == "student":
            control = distillkit.Recipe.create(**{k: v for k, v in keys.items() if k not in ("losses", "teacher")})
            models["control"] = distillkit.train(control, tmp_path / "runs" / "control", plugins=plugins)
    found = [weights(models[name]) for name in ("student", "student-hybrid", "control")]
    assert not any(same(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    lines = (tmp_path / "runs" / "student" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert {key: value for key, value in last.items() if key.startswith("weight/")} == {
        "weight/kd.latent": 0.2,
        "weight/kd.hyper_latent": 0.2,
        "weight/kd.output": 0.2,
    }
    setup = prepare(resolve(distillkit.Recipe.load(tmp_path / "runs/student-hybrid/recipe.toml"), plugins), plugins)
    assert setup.task.teacher_of == {"kd.latent": "picture", "kd.hyper_latent": "rate", "kd.output": "picture"}
    assert setup.rates.teachers == {"picture": 0.025, "rate": 0.0035}
    assert setup.timeline.phases[0].rd_weight == 0.4
