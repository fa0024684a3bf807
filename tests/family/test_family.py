"""Families of runs: planning, carrying out, stopping, merging."""

from __future__ import annotations

import json
import shutil
from statistics import fmean, stdev

import pytest

import distillkit
from distillkit.errors import RecipeError, TrainingError
from distillkit.family.plan import Family, plan
from distillkit.family.record import record_of
from distillkit.family.run import run_family, status, status_json
from distillkit.family.tables import summarise
from distillkit.training.setup.resolve import resolve
from distillkit.training.setup.teachers import control_of

DATA = {"crop": 64, "batch_size": 2}
COMMON = {"pair": {"name": "small.pair"}, "num_steps": 4, "checkpoint_every": 2, "device": "cpu"}


@pytest.fixture
def family(photographs):
    def build(**changes):
        recipe = {**COMMON, "data": {**DATA, "train": photographs}}
        values = {"test": photographs, "teacher": recipe, "student": {**recipe, "losses": {"feds.alignment": {}}}}
        return Family.create(**(values | changes))

    return build


def names(jobs):
    return [job.name for job in jobs]


def test_the_control_is_there_without_asking(family, tmp_path):
    jobs = plan(family(), tmp_path)
    assert names(jobs) == ["teacher-0.013", "control-0.013-seed0", "student-0.013-seed0"]
    teacher, control, student = jobs
    assert teacher.recipe.trains == "teacher"
    assert control.recipe == student.recipe.model_copy(update={"losses": {}, "teacher": None})
    assert student.needs == ("teacher-0.013",)
    assert control.needs == ()


def test_variants_replace_keys_and_may_have_seeds_and_lambdas_of_their_own(family, tmp_path):
    variants = {
        "control": {"losses": {}, "seeds": [0, 1]},
        "heir": {"losses": {}, "initial_weights": "teacher", "lmbdas": [0.01]},
    }
    jobs = plan(family(variants=variants, lmbdas=[0.02, 0.01], seeds=[0]), tmp_path)
    assert names(jobs) == [
        "teacher-0.02",
        "control-0.02-seed0",
        "control-0.02-seed1",
        "teacher-0.01",
        "control-0.01-seed0",
        "heir-0.01-seed0",
        "control-0.01-seed1",
    ]
    heir = jobs[5]
    assert heir.recipe.teacher == tmp_path / "teacher-0.01" / "model.safetensors"
    assert heir.needs == ("teacher-0.01",)
    assert [job.recipe.lmbda for job in jobs] == [job.lmbda for job in jobs]


def test_who_gets_a_teacher_is_what_something_in_it_needs_one_for(family, tmp_path, plugins):
    """Some extensions need the teacher; some losses need none, or name another."""
    own = {"losses": {"kd.latent": {"teacher": "high"}}, "teachers": {"high": tmp_path / "high"}}
    variants = {
        "control": {"losses": {}},
        "decay": {"losses": {}, "extensions": {"kd.mask_decay": {}}},
        "mean": {"losses": {}, "extensions": {"core.ema": {}}},
        "quiet": {"losses": {"small.quiet_output": {}}},
        "own": own,
    }
    jobs = plan(family(variants=variants), tmp_path, plugins)
    taught = [job.variant for job in jobs if job.recipe.teacher is not None]
    assert taught == [job.variant for job in jobs if job.needs] == ["decay"]


def test_the_control_drops_what_needs_a_teacher(family, tmp_path, plugins):
    losses = {"kd.latent": {}, "small.quiet_output": {}}
    extensions = {"kd.mask_decay": {}, "core.ema": {}}
    keys = {"losses": losses, "extensions": extensions, "initial_weights": "teacher", "teachers": {"a": tmp_path}}
    student = family().student | keys
    control = control_of(distillkit.Recipe.create(**student, teacher=tmp_path), plugins)
    assert (list(control.losses), list(control.extensions)) == (["small.quiet_output"], ["core.ema"])
    assert (control.teacher, control.teachers, control.initial_weights) == (None, {}, "random")
    resolve(control, plugins)


def test_later_lambdas_start_from_earlier_ones(family, tmp_path):
    warm = {"teacher_steps": 3, "student_steps": 2}
    jobs = plan(family(lmbdas=[0.02, 0.01], warm_start=warm), tmp_path)
    assert [job.recipe.num_steps for job in jobs] == [4, 4, 4, 3, 2, 2]
    assert jobs[0].recipe.initial_weights == "random"
    assert jobs[5].recipe.initial_weights == tmp_path / "student-0.02-seed0" / "model.safetensors"
    assert jobs[5].needs == ("teacher-0.01", "student-0.02-seed0")


@pytest.mark.slow
def test_a_range_of_lambdas_is_one_run_measured_at_five_qualities(photographs, tmp_path):
    small = {"architecture": "bmshj2018-factorized", "N": 4, "M": 8}
    many, one = ({"name": "models.compressai", "teacher": each, "student": each} for each in
                 ({**small, "gain_units": 2}, small))  # fmt: skip
    span = {"low": 0.0035, "high": 0.0483}
    common = {"num_steps": 1, "data": {**DATA, "train": photographs}, "device": "cpu"}
    whole = Family.create(
        test=photographs,
        lmbdas=[span, 0.013],
        teacher={**common, "pair": one},
        student={**common, "pair": one},
        variants={"single": {"lmbdas": [0.013]}, "many": {"lmbdas": [span], "pair": many}},
    )
    jobs = plan(whole, tmp_path)
    assert names(jobs) == ["many-0.0035-0.0483-seed0", "teacher-0.013", "single-0.013-seed0"]  # none teaches the first
    rows = run_family(whole, tmp_path, only=["many-*"], observers=list)
    assert [results["quality"] for results in rows[0].sweep] == [0, 0.25, 0.5, 0.75, 1]
    assert rows[0].results["quality"] == 0.5
    lines = summarise(rows)
    assert [line.lmbda for line in lines] == pytest.approx([0.0035 * 13.8**q for q in (0, 0.25, 0.5, 0.75, 1)])
    assert json.loads(status_json(rows))[0]["lmbda"] == span
    kept = record_of(rows)
    assert [job.quality for job in kept.jobs] == [0, 0.25, 0.5, 0.75, 1]
    assert record_of(status(whole, tmp_path / "elsewhere"), kept).jobs == kept.jobs
    taught = whole.model_copy(update={"student": {**whole.student, "losses": {"kd.hint": {}}}})
    assert names(plan(taught, tmp_path))[0] == "teacher-0.0035-0.0483"
    with pytest.raises(RecipeError, match="variant a: expected lmbdas out of those of the family .0.0035 to 0.0483"):
        Family.create(**{**whole.model_dump(), "variants": {"a": {"lmbdas": [0.5]}}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"a b": {}}}, "expected variants with names of letters"),
        ({"variants": {"a": {"lmbdas": [0.5]}}}, "variant a: expected lmbdas out of"),
        ({"lmbda": 0.01}, "family: lmbda: unknown key. Did you mean 'lmbdas'?"),
        ({"lmbdas": []}, "family: lmbdas"),
    ],
)
def test_what_is_wrong_is_said(family, changes, message):
    with pytest.raises(RecipeError) as error:
        family(**changes)
    assert message in str(error.value)


def test_a_job_with_a_wrong_recipe_is_named(family, tmp_path):
    with pytest.raises(RecipeError, match="family: bad-0.013-seed0: num_step: unknown key. Did you mean 'num_steps'"):
        plan(family(variants={"bad": {"num_step": 3}}), tmp_path)


def test_it_runs_stops_and_goes_on(family, tmp_path, plugins):
    whole = family(seeds=[0, 1])
    quiet = {"plugins": plugins, "observers": list}
    rows = run_family(whole, tmp_path, budget_hours=0, **quiet)
    assert [(row.state, row.step) for row in rows] == [
        ("begun", 2),
        ("ready", 0),
        ("waiting", 0),
        ("ready", 0),
        ("waiting", 0),
    ]
    with pytest.raises(RecipeError, match="it needs teacher-0.013, which is not done"):
        run_family(whole, tmp_path, only=["student-*"], **quiet)
    rows = run_family(whole, tmp_path, **quiet)
    assert all(row.state == "done" and row.results for row in rows)
    again = run_family(whole, tmp_path, **quiet)
    assert status_json(again) == status_json(rows)
    teacher, control, student = summarise(rows)
    assert summarise(record_of(rows).jobs) == [teacher, control, student]
    costs = [row.results["averages"]["rd_cost"] for row in rows]
    assert teacher.rd_cost == costs[0]
    assert (control.rd_cost, control.spread) == (fmean([costs[1], costs[3]]), stdev([costs[1], costs[3]]))
    assert student.against_control == pytest.approx((costs[2] + costs[4]) / (costs[1] + costs[3]) - 1)
    assert (teacher.against_control, control.against_control) == (None, None)


@pytest.mark.slow
def test_parts_from_other_machines_are_merged_by_copying(family, photographs, tmp_path, plugins):
    here, there, elsewhere = tmp_path / "here", tmp_path / "there", tmp_path / "photographs"
    quiet = {"plugins": plugins, "observers": list}
    run_family(family(), here, only=["teacher-*"], **quiet)
    shutil.copytree(photographs, elsewhere)
    recipe = {**COMMON, "data": {**DATA, "train": elsewhere}}
    away = family(test=elsewhere, teacher=recipe, student={**recipe, "losses": {"feds.alignment": {}}})
    run_family(away, there, only=["control-*"], **quiet)
    shutil.copytree(there / "control-0.013-seed0", here / "control-0.013-seed0")
    rows = run_family(family(), here, **quiet)
    assert all(row.state == "done" and row.results for row in rows)
    longer = family(variants={"control": {"losses": {}, "num_steps": 5}})
    with pytest.raises(TrainingError, match="a run of another recipe .num_steps: 4 there, 5 now"):
        run_family(longer, here, **quiet)


def test_every_path_in_a_file_starts_from_its_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = 'pair = {name = "small.pair"}\nnum_steps = 2\ndata = {train = "photos"}\n'
    (tmp_path / "mine.toml").write_text(
        f'test = "kodak"\n[teacher]\n{recipe}initial_weights = "old/teacher.safetensors"\n[student]\n{recipe}'
        'initial_weights = "random"\n'
        '[variants.heir]\ninitial_weights = "teacher"\n'
        '[variants.warm]\ninitial_weights = "old/student.safetensors"\n'
        'data = {train = "others"}\n'
    )
    family = Family.load(tmp_path / "mine.toml")
    teacher, heir, warm = (job.recipe for job in plan(family, tmp_path / "runs"))
    assert family.test == tmp_path / "kodak"
    assert teacher.initial_weights == tmp_path / "old/teacher.safetensors"
    assert (heir.initial_weights, heir.data.train) == ("teacher", tmp_path / "photos")
    assert (warm.initial_weights, warm.data.train) == (tmp_path / "old/student.safetensors", tmp_path / "others")


@pytest.mark.slow
def test_a_file_and_the_command(photographs, tmp_path):
    from typer.testing import CliRunner

    from distillkit.cli.app import app

    (tmp_path / "photos").symlink_to(photographs)
    pair = 'pair = {name = "models.cheng2020"}\nnum_steps = 2\ndata = {train = "photos", crop = 64, batch_size = 1}\n'
    losses = '[student.losses."feds.alignment"]\n'
    (tmp_path / "mine.toml").write_text(f'test = "photos"\n[teacher]\n{pair}[student]\n{pair}{losses}')
    loaded = Family.load(tmp_path / "mine.toml")
    assert loaded.test == tmp_path / "photos"
    assert plan(loaded, tmp_path)[0].recipe.data.train == tmp_path / "photos"
    runner, arguments = CliRunner(), ["family", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "runs")]
    shown = runner.invoke(app, [*arguments, "--status", "--json"])
    assert [row["state"] for row in json.loads(shown.stdout)] == ["ready", "ready", "waiting"]
    done = runner.invoke(app, [*arguments, "--only", "teacher-*"], catch_exceptions=False)
    assert "1 of 3 jobs done" in done.stdout
    assert "RD cost on the family's pictures" in done.stdout
    files = ["--record", str(tmp_path / "kept/mine.json"), "--results", str(tmp_path / "kept/results.md")]
    runner.invoke(app, [*arguments, "--status", *files], catch_exceptions=False)
    page = (tmp_path / "kept/results.md").read_text()
    assert "| 0.013 | teacher | 1 |" in page
    record = json.loads((tmp_path / "kept/mine.json").read_text())
    assert [job["job"] for job in record["jobs"]] == ["teacher-0.013"]
    assert str(tmp_path) not in (tmp_path / "kept/mine.json").read_text()
    # Runs of another machine stay in the record, as long as the family has them with as many steps.
    others = [("control-0.013-seed0", 2), ("student-0.013-seed0", 7), ("gone-0.013-seed0", 2)]
    elsewhere = [
        record["jobs"][0] | {"job": name, "variant": name.partition("-")[0], "num_steps": steps}
        for name, steps in others
    ]
    about = {job["variant"]: record["variants"]["teacher"] for job in elsewhere}
    (tmp_path / "kept/joined.json").write_text(json.dumps(record | {"jobs": elsewhere, "variants": about}))
    runner.invoke(app, [*arguments, "--status", "--record", str(tmp_path / "kept/joined.json")], catch_exceptions=False)
    joined = json.loads((tmp_path / "kept/joined.json").read_text())
    assert [job["job"] for job in joined["jobs"]] == ["teacher-0.013", "control-0.013-seed0"]
    (tmp_path / "kept/notes.json").write_text("mine")
    with pytest.raises(distillkit.DistillkitError, match="expected JSON"):
        runner.invoke(
            app, [*arguments, "--status", "--record", str(tmp_path / "kept/notes.json")], catch_exceptions=False
        )
    assert (tmp_path / "kept/notes.json").read_text() == "mine"
    (tmp_path / "kept/results.md").unlink()
    again = runner.invoke(app, ["family", files[1], *files[2:]], catch_exceptions=False)
    assert (tmp_path / "kept/results.md").read_text() == page
    assert "teacher" in again.stdout
    with pytest.raises(distillkit.DistillkitError, match="no such job; the family has teacher-0.013, control"):
        runner.invoke(app, [*arguments, "--only", "foo"], catch_exceptions=False)
    assert [row.state for row in status(loaded, tmp_path / "runs")] == ["done", "ready", "ready"]
