"""Families whose teacher is trained already: its model is measured, and teaches."""

from __future__ import annotations

import pytest

import distillkit
from distillkit.errors import CheckpointError, RecipeError
from distillkit.family.plan import Family, plan
from distillkit.family.record import record_of
from distillkit.family.run import run_family
from distillkit.report.runs import read_runs

RANGE = {"low": 0.0018, "high": 0.0483}


@pytest.fixture
def family(photographs):
    def build(teacher, **changes):
        student = {"pair": {"name": "small.pair"}, "num_steps": 1, "device": "cpu", "losses": {"feds.alignment": {}}}
        student["data"] = {"train": photographs, "crop": 64, "batch_size": 1}
        return Family.create(**({"test": photographs, "teacher": teacher, "student": student} | changes))

    return build


@pytest.fixture(scope="module")
def many_rates(photographs, tmp_path_factory, trained_plugins):
    """A codec of many rates as it is before training: a run of no steps."""
    recipe = distillkit.Recipe.create(
        trains="student",
        pair={"name": "small.gained"},
        lmbda=RANGE,
        num_steps=0,
        data={"train": photographs, "crop": 64},
        device="cpu",
    )
    return distillkit.train(recipe, tmp_path_factory.mktemp("rates") / "run", plugins=trained_plugins)


def test_a_run_of_no_steps_keeps_its_initial_weights(recipe, teacher_file, tmp_path, plugins):
    copy = recipe(num_steps=0, trains="teacher", initial_weights=teacher_file, schedule={"name": "core.constant"})
    model = distillkit.train(copy, tmp_path / "run", plugins=plugins)
    assert distillkit.load_model(model, plugins).fingerprint == distillkit.load_model(teacher_file, plugins).fingerprint
    assert distillkit.train(copy, tmp_path / "run", plugins=plugins) == model
    taught = recipe(num_steps=0, teacher=teacher_file, losses={"feds.alignment": {}})  # in phases, all of no steps
    assert distillkit.load_model(distillkit.train(taught, tmp_path / "taught", plugins=plugins), plugins)


@pytest.mark.slow
def test_it_is_measured_and_teaches(family, teacher_file, tmp_path, plugins):
    whole = family(str(teacher_file.parent))  # its run folder
    rows = run_family(whole, tmp_path, plugins=plugins, observers=list)
    assert [row.job.name for row in rows] == ["teacher-0.013", "control-0.013-seed0", "student-0.013-seed0"]
    teacher, _, student = rows
    assert (teacher.state, teacher.job.recipe.num_steps, teacher.step) == ("done", 0, 0)
    pictures = sorted(whole.test.iterdir())
    alone = distillkit.evaluate_model(teacher_file, pictures, tmp_path / "alone", plugins=plugins)
    assert teacher.results["averages"]["rd_cost"] == alone.averages["rd_cost"]
    assert student.job.recipe.teacher == tmp_path / "teacher-0.013/model.safetensors"
    assert (
        record_of(rows).variants["teacher"]["initial_weights"] == teacher_file.parent.name
    )  # the run that it comes from


@pytest.mark.slow
def test_one_of_many_rates_is_measured_at_the_lambdas_of_its_students(family, many_rates, tmp_path, plugins):
    whole = family(many_rates, lmbdas=[0.02, 0.013, 0.5], variants={"control": {"losses": {}}})
    jobs = plan(whole, tmp_path, plugins)
    assert [job.name for job in jobs] == ["teacher-0.0018-0.0483", *(f"control-{each}-seed0" for each in whole.lmbdas)]
    assert len(jobs[0].qualities) == 2  # it has no 0.5
    rows = run_family(whole, tmp_path, only=["teacher-*", "control-0.013-*"], plugins=plugins, observers=list)
    measured = [job for job in record_of(rows).jobs if job.variant == "teacher"]
    assert [job.lmbda for job in measured] == [0.02, 0.013]
    shown = read_runs(tmp_path / "control-0.013-seed0").teacher
    assert shown.results["lmbda"] == 0.013
    assert shown.results["averages"]["rd_cost"] == measured[1].averages["rd_cost"]


def test_beside_students_of_many_rates_or_none_of_its_own_it_is_measured_at_five_qualities(
    family, many_rates, tmp_path, plugins
):
    for lmbdas in ([RANGE], [0.5]):
        (teacher, *_) = plan(family(many_rates, lmbdas=lmbdas, variants={"control": {"losses": {}}}), tmp_path, plugins)
        assert teacher.qualities == (0, 0.25, 0.5, 0.75, 1)


def test_each_lambda_may_have_its_own(family, teacher_file, many_rates, tmp_path, plugins):
    jobs = plan(family([many_rates, teacher_file], lmbdas=[0.02, 0.013]), tmp_path, plugins)
    needs = {job.name: job.needs for job in jobs if job.variant == "student"}
    assert needs == {"student-0.02-seed0": ("teacher-0.0018-0.0483",), "student-0.013-seed0": ("teacher-0.013",)}


def test_a_model_that_ships_and_paths_from_the_familys_folder(family, tmp_path):
    text = 'test = "p"\nteacher = ["zoo:lite-student", "m/run"]\nlmbdas = [0.01, 0.02]\n[student]\nnum_steps = 1\n'
    (tmp_path / "family.toml").write_text(text)
    ships, own = Family.load(tmp_path / "family.toml").teacher
    assert ships.is_file()
    assert own == tmp_path / "m/run"


@pytest.mark.parametrize(
    ("teacher", "error", "message"),
    [
        (
            3,
            RecipeError,
            "family: teacher: expected a recipe, or the file of a trained teacher or a list of such, got 3",
        ),
        (["a", "b", "c"], RecipeError, "teacher: expected one file, or one for each of lmbdas (0.01, 0.02), got 3"),
        ("zoo:lite-techer", CheckpointError, "Did you mean 'lite-teacher'?"),
        ("nowhere", CheckpointError, "model nowhere: no such file"),
    ],
)
def test_what_is_wrong_with_it_is_reported(family, teacher, error, message, tmp_path, plugins):
    with pytest.raises(error) as raised:
        plan(family(teacher, lmbdas=[0.01, 0.02]), tmp_path, plugins)
    assert message in str(raised.value)


def test_two_of_one_lambda_cannot_be_told_apart(family, teacher_file, tmp_path, plugins):
    (tmp_path / "other.safetensors").write_bytes(teacher_file.read_bytes())
    whole = family([teacher_file, tmp_path / "other.safetensors"], lmbdas=[0.01, 0.02])
    with pytest.raises(RecipeError, match="family teacher: expected trained teachers of different lambdas, got two of"):
        plan(whole, tmp_path, plugins)
