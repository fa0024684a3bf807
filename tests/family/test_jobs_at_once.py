"""Jobs of a family beside one another: in processes, and through submitit."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch
from typer.testing import CliRunner

from distillkit.cli.app import app
from distillkit.errors import DistillkitError, PairError, RecipeError
from distillkit.family.plan import Family
from distillkit.family.run import run_family, status
from distillkit.training.preemption import TrainingStopped

COMMON = {"pair": {"name": "small.pair"}, "num_steps": 4, "checkpoint_every": 2, "device": "cpu"}


@pytest.fixture
def family(photographs):
    recipe = {**COMMON, "data": {"train": photographs, "crop": 64, "batch_size": 2}}
    variants = {"control": {"losses": {}}, "feds": {"losses": {"feds.alignment": {}}}}
    return Family.create(test=photographs, teacher=recipe, student=recipe, variants=variants)


@pytest.fixture
def alone(family, tmp_path, plugins):
    """The models of the jobs one after the other."""
    folder = tmp_path / "alone"
    return models(run_family(family, folder, plugins=plugins, observers=list), folder)


def models(rows, folder):
    assert all(row.state == "done" and row.results for row in rows)
    return {row.job.name: (folder / row.job.name / "model.safetensors").read_bytes() for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("submit", [None, "local"])
def test_they_stop_continue_and_end_as_one_after_the_other(family, alone, tmp_path, plugins, submit):
    options = {"plugins": plugins, "observers": list, "jobs": 2, "submit": submit}
    lines = []
    first = run_family(family, tmp_path / "many", budget_hours=0, on_job=lines.append, **options)
    assert [(row.state, row.step) for row in first] == [("begun", 2), ("ready", 0), ("waiting", 0)]
    assert lines == ["teacher-0.013: starts", "teacher-0.013: out of time"]
    rows = run_family(family, tmp_path / "many", on_job=lines.append, **options)
    assert models(rows, tmp_path / "many") == alone
    assert lines[2:4] == ["teacher-0.013: starts", "control-0.013-seed0: starts"]


@pytest.mark.slow
def test_sigterm_saves_all_and_the_same_call_continues(family, alone, tmp_path, plugins):
    folder = tmp_path / "stopped"
    longer = family.model_copy(update={"student": {**family.student, "checkpoint_every": 1}})
    options = {"plugins": plugins, "observers": list, "jobs": 2}

    def stop_when_begun():
        end = time.monotonic() + 120
        while not list(folder.glob("*/metrics.jsonl")) and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_when_begun)
    thread.start()
    with pytest.raises(TrainingStopped):
        run_family(longer, folder, **options)
    thread.join()
    assert any(row.state != "done" for row in status(longer, folder))
    assert models(run_family(longer, folder, **options), folder) == alone


@pytest.mark.slow
def test_one_that_fails_leaves_the_others_to_end(family, photographs, tmp_path, plugins):
    wider = {"losses": {}, "pair": {"name": "models.cheng2020", "size": "tiny"}, "data": {"train": photographs}}
    bad = {**wider, "data": {"train": photographs, "crop": 96, "batch_size": 2}}
    whole = Family.create(**{**family.model_dump(), "variants": {"bad": bad, "control": {"losses": {}}}})
    with pytest.raises(DistillkitError, match="crop"):
        run_family(whole, tmp_path, plugins=plugins, observers=list, jobs=2)
    states = {row.job.variant: row.state for row in status(whole, tmp_path)}
    assert states["control"] == "done"
    assert states["bad"] != "done"


def test_what_is_missing_is_reported_without_a_process(family, tmp_path, plugins):
    with pytest.raises(RecipeError, match="family, job feds-0.013-seed0: it needs teacher-0.013, which is not done"):
        run_family(family, tmp_path, plugins=plugins, only=["feds-*"], jobs=2)


def test_plugins_that_no_module_holds_are_refused(family, tmp_path):
    import distillkit
    import tests.small_pair

    class Holder:
        register_pairs = staticmethod(tests.small_pair.register_pairs)

    with pytest.raises(
        (DistillkitError, PairError), match="expected plugins that other processes can import, got small"
    ):
        run_family(family, tmp_path, plugins=distillkit.load_plugins(small=Holder()), jobs=2)


def test_a_scheduler_or_an_option_that_is_not_there(family, tmp_path, plugins):
    for options in ({"submit": "slurm"}, {"submit": "local", "submit_options": {"hours": 3}}):
        with pytest.raises(DistillkitError, match=f"family --submit {options['submit']}: .* cannot be used"):
            run_family(family, tmp_path, plugins=plugins, **options)


def test_each_has_its_share_of_the_threads(family, tmp_path, plugins, monkeypatch):
    seen = []

    class Ended:
        def __init__(self, task):
            seen.append(task.threads)

        def done(self):
            return True

        def result(self):
            raise DistillkitError("enough")

    monkeypatch.setattr("distillkit.family.run.InProcess", Ended)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    with pytest.raises(DistillkitError, match="enough"):
        run_family(family, tmp_path, plugins=plugins, only=["teacher-*"], jobs=3)
    assert seen == [2]


def test_options_for_a_scheduler_need_one(tmp_path):
    done = CliRunner().invoke(app, ["family", str(tmp_path / "x.toml"), "--submit-set", "timeout_min=5"])
    assert isinstance(done.exception, RecipeError)
    assert "--submit-set: expected a scheduler to pass it to, got none; add --submit slurm" in str(done.exception)
