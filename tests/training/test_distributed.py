"""Two processes (torchrun, gloo, CPU) train what one trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distillkit
from distillkit.errors import RecipeError
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint
from distillkit.training.setup.resolve import resolve

ROOT = Path(__file__).parents[2]
FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 4}}


@pytest.fixture
def quiet_teacher(recipe, tmp_path_factory, plugins):
    r = recipe(trains="teacher", pair={"name": "small.quiet"}, schedule={"name": "core.constant"}, num_steps=2)
    return distillkit.train(r, tmp_path_factory.mktemp("quiet") / "run", plugins=plugins)


@pytest.fixture
def sgd(recipe, quiet_teacher, photographs):
    """A recipe whose result depends on the batch, not on how it is divided, and shows a wrongly scaled gradient."""

    def build(**changes):
        values = {
            "pair": {"name": "small.quiet"},
            "losses": FEDS,
            "teacher": quiet_teacher,
            "precision": "fp32",
            "data": {"train": photographs, "crop": 64, "batch_size": 4},
            "optimizer": {"name": "sgd", "learning_rate": 1e-4, "clip_norm": 1e6},
        }
        return recipe(**(values | changes))

    return build


def launch(recipe, folder: Path, processes: int = 2, expect: int | None = 0, **more) -> list[dict]:
    """Carry out a recipe in several processes and return what each of them has to say."""
    return launch_all([job(recipe, folder, **more)], processes, expect)[0]


def job(recipe, folder: Path, **more) -> dict:
    return {"recipe": recipe.model_dump(mode="json", exclude_none=True), "folder": str(folder), **more}


def launch_all(jobs: list[dict], processes: int = 2, expect: int | None = 0) -> list[list[dict]]:
    """Carry out several recipes one after the other in the same processes, and return what each says of each."""
    for place, each in enumerate(jobs):
        Path(each["folder"]).mkdir(exist_ok=True)
        each["place"] = place
    spec = Path(jobs[0]["folder"]) / "spec.json"
    spec.write_text(json.dumps(jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, "-m", "tests.rank", str(spec)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if expect is None:
        assert done.returncode != 0
        return [[]]
    assert done.returncode == expect, done.stderr[-4000:]
    return [
        [json.loads((Path(each["folder"]) / f"said-{place}-{rank}.json").read_text()) for rank in range(processes)]
        for place, each in enumerate(jobs)
    ]


def student(folder: Path, plugins):
    return distillkit.load_model(folder / "run", plugins).codec.module.state_dict()


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def largest_difference(a, b, start):
    """The largest difference of two trained models, relative to how far training moved that tensor."""
    worst = 0.0
    for name, tensor in a.items():
        if tensor.is_floating_point() and "quantized" not in name and "offset" not in name:
            moved = (tensor - start[name]).abs().max() if start[name].shape == tensor.shape else torch.tensor(0.0)
            rounding = torch.finfo(tensor.dtype).eps * tensor.abs().max()  # of one step on a weight that hardly moved
            difference = ((tensor - b[name]).abs().max() - rounding).clamp(min=0)
            assert moved > 0 or difference == 0, name
            worst = max(worst, float(difference / moved) if moved > 0 else 0.0)
    return worst


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param({"name": "feds.staged", "every": 2}, marks=pytest.mark.slow),
        pytest.param({"name": "feds.staged"}, marks=pytest.mark.slow),
        pytest.param({"name": "small.freeze_first"}, marks=pytest.mark.slow),
    ],
)
def test_the_same_global_batch_gives_the_same_weights(sgd, tmp_path, plugins, held_out, schedule):
    """And the same mean of the weights, and the same figures on held-out crops that two do not share evenly."""
    from distillkit.training.setup.prepare import prepare

    validation = {"data": held_out, "every": 4, "crops": 3, "save": "last"}
    r = sgd(schedule=schedule, extensions={"core.ema": {"decay": 0.5}}, validation=validation)
    distillkit.train(r, tmp_path / "one" / "run", plugins=plugins)
    said = launch(r, tmp_path / "two")
    assert [each["said"] for each in said] == ["finished", "finished"]
    phases = 3 if schedule["name"] == "feds.staged" else 2
    assert [each["wrapped"] for each in said] == [["DistributedDataParallel"] * phases] * 2
    start = prepare(resolve(r, plugins), plugins).codec.module.state_dict()
    assert largest_difference(student(tmp_path / "one", plugins), student(tmp_path / "two", plugins), start) < 1e-3
    # What is logged is of the whole batch too.
    one, two = (metrics(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert any("validation/rd_cost" in line for line in one)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds_per_step", "phase"}:
            assert b[key] == pytest.approx(a[key], rel=1e-3), key
    # One process alone is told and writes; the calibration is one and the same.
    assert (tmp_path / "two" / "told-0.txt").read_text() == "0\nfinished\n"
    assert not (tmp_path / "two" / "told-1.txt").exists()
    file = "run/calibration/feds.channel_entropy.json"
    records = [json.loads((tmp_path / name / file).read_text())["record"] for name in ("one", "two")]
    assert records[1]["bits_per_pixel"] == pytest.approx(records[0]["bits_per_pixel"], rel=1e-4)


@pytest.mark.slow
def test_each_crop_of_a_codec_of_many_rates_has_its_quality_in_whichever_process(sgd, tmp_path, plugins):
    from distillkit.training.setup.prepare import prepare

    r = sgd(
        pair={"name": "small.quiet_gained"},
        lmbda={"low": 0.002, "high": 0.032},
        losses={},
        teacher=None,
        schedule={"name": "core.constant"},
        num_steps=4,
    )
    distillkit.train(r, tmp_path / "one" / "run", plugins=plugins)
    launch(r, tmp_path / "two")
    start = prepare(resolve(r, plugins), plugins).codec.module.state_dict()
    assert largest_difference(student(tmp_path / "one", plugins), student(tmp_path / "two", plugins), start) < 1e-3


@pytest.mark.slow
def test_processes_that_the_program_joined_train_the_same(sgd, tmp_path):
    r = sgd(num_steps=3, losses={}, teacher=None, schedule={"name": "core.constant"})
    for name, joined in (("ours", False), ("theirs", True)):
        said = launch(r, tmp_path / name, joined=joined)
        assert [each["said"] for each in said] == ["finished", "finished"]
    ours, theirs = (
        load_checkpoint(list_checkpoints(tmp_path / name / "run" / "checkpoints")[-1]) for name in ("ours", "theirs")
    )
    assert all(torch.equal(ours["task"][name], tensor) for name, tensor in theirs["task"].items())


@pytest.mark.slow
def test_accumulation_gives_the_same_weights(sgd, tmp_path, plugins):
    """With a loss that is a mean over the batch, as all but those that use statistics of the batch."""
    from distillkit.training.setup.prepare import prepare

    staged = {"name": "feds.staged", "channel_share": 0.8, "alignment_share": 0.0}
    r = sgd(losses={"feds.channel_entropy": {"calibration_crops": 4}}, schedule=staged)
    start = prepare(resolve(r, plugins), plugins).codec.module.state_dict()
    distillkit.train(r, tmp_path / "whole" / "run", plugins=plugins)
    parts = r.model_copy(update={"accumulate": 4})
    distillkit.train(parts, tmp_path / "parts" / "run", plugins=plugins)
    whole = student(tmp_path / "whole", plugins)
    assert largest_difference(whole, student(tmp_path / "parts", plugins), start) < 1e-3
    launch(r.model_copy(update={"accumulate": 2}), tmp_path / "both")
    assert largest_difference(whole, student(tmp_path / "both", plugins), start) < 1e-3


@pytest.mark.slow
def test_without_an_accelerator_auto_is_the_cpu_and_the_processes_still_train_together(sgd, tmp_path, plugins):
    """Otherwise each would train a model of its own, and all would write into one folder."""
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is an accelerator")
    said = launch(sgd(device="auto", num_steps=2, losses={}, teacher=None), tmp_path / "both")
    assert all("DistributedDataParallel" in each["wrapped"] for each in said)


def stopped_and_whole(recipe, folder: Path) -> list[dict]:
    """Train in two processes with a stop asked of the second, and once without a stop; return both states."""
    halves = (job(recipe, folder / "run", fault="sigterm", fault_rank=1, fault_step=2), job(recipe, folder / "run"))
    stopped, again, _ = launch_all([*halves, job(recipe, folder / "whole")])
    for each in stopped:
        assert each["said"].startswith(f"TrainingStopped: run run: stopped after step 3 of {recipe.num_steps}, and")
        assert each["saved"][-1] == "step-00000003"
    assert [each["said"] for each in again] == ["finished", "finished"]
    assert (folder / "run" / "told-0.txt").read_text() == "3\nfinished\n"
    states = [load_checkpoint(list_checkpoints(folder / name / "run" / "checkpoints")[-1]) for name in ("run", "whole")]
    assert states[0]["step"] == recipe.num_steps
    assert all(torch.equal(states[0]["task"][name], tensor) for name, tensor in states[1]["task"].items())
    models = [(folder / name / "run" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert models[0] == models[1]
    return states


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_and_they_go_on_bit_for_bit(recipe, teacher_file, tmp_path, held_out):
    """With noise, which each process draws for itself, the mean of the weights, and the best on held-out crops."""
    validation = {"data": held_out, "every": 4, "crops": 3}
    r = recipe(losses=FEDS, teacher=teacher_file, extensions={"core.ema": {"decay": 0.5}}, validation=validation)
    states = stopped_and_whole(r, tmp_path)
    means = [state["extensions"]["core.ema"]["mean"] for state in states]
    assert means[0]
    assert all(torch.equal(a, b) for a, b in zip(*means, strict=True))
    assert len(states[0]["other_ranks"]) == 1
    assert not torch.equal(states[0]["rng"], states[0]["other_ranks"][0][0])


@pytest.mark.slow
def test_a_large_codec_decays_in_two_processes_as_in_one(recipe, sgd, teacher_file, tmp_path, plugins, held_out):
    """With the mean of its weights, validation, and each share of a batch cut into parts."""
    from distillkit.training.setup.prepare import prepare

    extensions = {"kd.mask_decay": {}, "core.ema": {"decay": 0.5}}
    validation = {"data": held_out, "every": 2, "crops": 3, "save": "last"}
    keys = {"extensions": extensions, "validation": validation, "num_steps": 6, "accumulate": 2, "losses": {}}
    r = sgd(**keys, schedule={"name": "core.constant"})
    start = prepare(resolve(r, plugins), plugins)
    distillkit.train(r.model_copy(update={"accumulate": 1}), tmp_path / "one" / "run", plugins=plugins)
    said = launch(r, tmp_path / "two")
    assert [each["said"] for each in said] == ["finished", "finished"]
    with start.extensions.as_saved() as cut:
        start = cut.module.state_dict()
    assert largest_difference(student(tmp_path / "one", plugins), student(tmp_path / "two", plugins), start) < 1e-3
    one, two = (
        [line["validation/rd_cost"] for line in metrics(tmp_path / name) if "validation/rd_cost" in line]
        for name in ("one", "two")
    )
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-3)
    noisy = recipe(
        **keys,
        teacher=teacher_file,
        schedule={"name": "core.constant"},
        optimizer={"name": "adam", "learning_rate": 1e-3},
        data={"train": r.data.train, "crop": 64, "batch_size": 4},
        checkpoint_every=2,
    )
    states = stopped_and_whole(noisy, tmp_path)
    assert states[0]["task"]["student.g_a.0.weight"].shape[0] == 16


@pytest.mark.slow
def test_a_killed_run_goes_on_with_another_number_of_processes(sgd, tmp_path, plugins):
    from distillkit.training.setup.prepare import prepare

    r = sgd(checkpoint_every=2)
    start = prepare(resolve(r, plugins), plugins).codec.module.state_dict()
    distillkit.train(r, tmp_path / "whole" / "run", plugins=plugins)
    launch(r, tmp_path / "run", expect=None, fault="kill", fault_rank=1, fault_step=5)
    assert [p.stem for p in list_checkpoints(tmp_path / "run" / "run" / "checkpoints")][-1] == "step-00000004"
    distillkit.train(r, tmp_path / "run" / "run", plugins=plugins)
    assert largest_difference(student(tmp_path / "whole", plugins), student(tmp_path / "run", plugins), start) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["data", "nan"])
def test_what_goes_wrong_in_one_process_ends_all(recipe, tmp_path, fault):
    r = recipe(schedule={"name": "core.constant"}, log_every=1)
    said = [each["said"] for each in launch(r, tmp_path / "run", fault=fault, fault_rank=1, fault_step=3)]
    if fault == "data":
        assert said == [
            "OtherRankError: rank 0: another one has no batch.",
            "DistillkitError: rank 1 cannot read its images",
        ]
    else:
        assert all("the rate was not finite at step 3" in each for each in said)


def test_a_batch_that_cannot_be_divided(recipe, tmp_path, plugins):
    with pytest.raises(RecipeError, match="expected a multiple of 1 processes x accumulate = 4, got 2"):
        distillkit.train(recipe(accumulate=4), tmp_path / "run", plugins=plugins)
