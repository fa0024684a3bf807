"""Real runs of a small pair: phases, the teacher's cost, resuming, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest
import torch

import distillkit
from distillkit.errors import CheckpointError, PairError, PluginError, RecipeError, TapError, TrainingError
from distillkit.training.distributed import Ranks
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.preemption import StopRequest, TrainingStopped
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.task import Taught
from distillkit.training.teaching.balance import balanced_scales
from distillkit.training.trainer import Trainer

FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}


class Interrupt(BaseException):
    pass


class StopAfter:
    """An observer that kills the run once a checkpoint is on disk."""

    def __init__(self, step):
        self.step = step

    @distillkit.hookimpl
    def checkpoint_saved(self, step):
        if step == self.step:
            raise Interrupt


class Record:
    """An observer that remembers what it was told."""

    def __init__(self):
        self.events = []

    @distillkit.hookimpl
    def run_started(self, run):
        self.events.append(("run_started", run.start_step, run.num_steps, run.notes))

    @distillkit.hookimpl
    def phase_started(self, run, phase, step):
        self.events.append(("phase_started", phase.name, step))

    @distillkit.hookimpl
    def metrics_logged(self, run, metrics):
        self.events.append(("metrics_logged", dict(metrics)))

    @distillkit.hookimpl
    def checkpoint_saved(self, run, step, path):
        assert path.is_file()
        self.events.append(("checkpoint_saved", step))

    @distillkit.hookimpl
    def run_finished(self, run, model):
        assert model.is_file()
        self.events.append(("run_finished",))


def weights(path):
    return distillkit.load_model(path, plugins=_plugins()).codec.module.state_dict()


def _plugins():
    import tests.small_pair

    return distillkit.load_plugins(small=tests.small_pair)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", [pytest.param("adam", marks=pytest.mark.slow), "soap", "muon"])
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("killed_after", [3, 4, 8])  # within a phase, at its end, and at the start of the last
def test_a_killed_run_ends_as_one_that_was_never_killed(
    recipe, teacher_file, tmp_path, plugins, optimizer, precision, killed_after
):
    r = recipe(
        losses=FEDS,
        teacher=teacher_file,
        precision=precision,
        checkpoint_every=1,
        optimizer={"name": optimizer, "learning_rate": 1e-3, "rate_schedule": "cosine", "warmup_steps": 2},
    )
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "killed", plugins=plugins, observers=[StopAfter(killed_after)])
    record = Record()
    torch.manual_seed(999)  # whatever the new process did before
    resumed = distillkit.train(r, tmp_path / "killed", plugins=_plugins(), observers=[record])
    assert record.events[0][1] == killed_after
    assert same(weights(whole), weights(resumed))
    lines = [[json.loads(x) for x in (p.parent / "metrics.jsonl").read_text().splitlines()] for p in (whole, resumed)]
    assert [x["step"] for x in lines[0]] == [3, 4, 6, 8, 9, 10]
    assert {x["step"] for x in lines[1]} <= {3, 4, 6, 8, 9, 10}
    states = [load_checkpoint(list_checkpoints(p.parent / "checkpoints")[-1]) for p in (whole, resumed)]
    assert states[0]["scales"] == states[1]["scales"]


def test_the_calibration_is_reused_on_resume_and_measured_again_for_another_teacher(
    recipe, teacher_file, tmp_path, plugins
):
    r = recipe(losses=FEDS, teacher=teacher_file, checkpoint_every=1)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(6)])
    path = tmp_path / "run" / "calibration" / "feds.channel_entropy.json"
    stored = json.loads(path.read_text())
    assert len(stored["record"]["bits_per_pixel"]) == 16
    assert stored["teacher_fingerprint"] == distillkit.load_model(teacher_file, plugins).fingerprint

    calls = count_teacher_calls(r, plugins, tmp_path / "run")
    assert calls["whole"] == 0  # calibration would have run the whole teacher
    stored["teacher_fingerprint"] = "0" * 32
    path.write_text(json.dumps(stored))
    calls = count_teacher_calls(r, plugins, tmp_path / "run")
    assert calls["whole"] == 1


def count_teacher_calls(r, plugins, folder, copy=True):
    """Carry out a run and count the passes that began in the teacher, and those that reached its end."""
    if copy:
        shutil.copytree(folder, folder.with_name("copy"), dirs_exist_ok=True)
    r = resolve(r, plugins)
    run = RunFolder(folder)
    run.open(r)
    setup = prepare(r, plugins)
    calls = {"begun": 0, "whole": 0, "by_step": []}
    module = setup.task.pairs["teacher"].teacher.module
    module.g_a[0].register_forward_hook(lambda *_: calls.__setitem__("begun", calls["begun"] + 1))
    module.g_s[-1].register_forward_hook(lambda *_: calls.__setitem__("whole", calls["whole"] + 1))
    trainer = Trainer(r, run, plugins, setup, Ranks("cpu"))
    state, _ = run.newest_state()
    start = trainer.restore(state) if state else 0
    original = trainer._step

    def step(*args):
        before = (calls["begun"], calls["whole"])
        original(*args)
        calls["by_step"].append((calls["begun"] - before[0], calls["whole"] - before[1]))

    trainer._step = step
    trainer.run(distillkit.RunInfo(folder.name, folder, r, start, r.num_steps), StopRequest())
    if copy:
        shutil.rmtree(folder)
        folder.with_name("copy").rename(folder)
    return calls


def test_the_teacher_runs_only_when_needed_and_only_as_far_as_needed(recipe, teacher_file, tmp_path, plugins):
    (tmp_path / "run").mkdir()
    calls = count_teacher_calls(recipe(losses=FEDS, teacher=teacher_file), plugins, tmp_path / "run", copy=False)
    # Steps 0-3 align features: the teacher runs, up to the last tap in its synthesis transform but not to its end.
    # Steps 4-5 fade alignment out, 6-7 need the latent alone, 8-9 fine-tune without a teacher.
    assert [begun for begun, _ in calls["by_step"]] == [1] * 8 + [0, 0]
    assert sum(whole for _, whole in calls["by_step"]) == 0


def test_a_schedule_may_want_the_teacher_in_every_second_step_only(recipe, teacher_file, tmp_path, plugins):
    schedule = {"name": "feds.staged", "every": 2}
    r = recipe(losses=FEDS, teacher=teacher_file, schedule=schedule, log_every=1, checkpoint_every=1)
    (tmp_path / "run").mkdir()
    calls = count_teacher_calls(r, plugins, tmp_path / "run", copy=False)
    assert [begun for begun, _ in calls["by_step"]] == [1, 0] * 4 + [0, 0]

    whole, resumed, record = tmp_path / "whole", tmp_path / "resumed", Record()
    distillkit.train(r, whole, plugins=plugins, observers=[record])
    lines = [event[1] for event in record.events if event[0] == "metrics_logged"]
    assert [("loss/feds.alignment" in line, "loss/feds.channel_entropy" in line) for line in lines] == [
        *[(True, False), (False, False)] * 2,
        *[(True, True), (False, False), (False, True), (False, False)],
        *[(False, False)] * 2,
    ]
    with pytest.raises(Interrupt):
        distillkit.train(r, resumed, plugins=plugins, observers=[StopAfter(3)])
    distillkit.train(r, resumed, plugins=plugins)
    assert same(weights(resumed / "model.safetensors"), weights(whole / "model.safetensors"))


def test_a_phase_that_needs_the_latent_stops_before_the_synthesis_transform(recipe, teacher_file, plugins):
    setup = prepare(resolve(recipe(losses=FEDS, teacher=teacher_file), plugins), plugins)
    reached = []
    setup.task.pairs["teacher"].teacher.module.g_s[0].register_forward_hook(lambda *_: reached.append("g_s"))
    setup.task.pairs["teacher"].teacher.module.h_a[0].register_forward_hook(lambda *_: reached.append("h_a"))
    setup.task.pairs["teacher"].run_teacher(torch.rand(1, 3, 64, 64), ["latent"])
    assert reached == []
    setup.task.pairs["teacher"].run_teacher(torch.rand(1, 3, 64, 64), ["latent", "synthesis.1/8"])
    assert reached == ["h_a", "g_s"]


def test_control_and_student_start_from_the_same_weights_and_see_the_same_noise(recipe, teacher_file, plugins):
    control = prepare(resolve(recipe(), plugins), plugins).codec.module.state_dict()
    student = prepare(resolve(recipe(losses=FEDS, teacher=teacher_file), plugins), plugins).codec.module.state_dict()
    assert same(control, student)
    other = prepare(resolve(recipe(seed=1), plugins), plugins).codec.module.state_dict()
    assert not same(control, other)


def test_without_weights_distillation_changes_nothing(recipe, teacher_file, tmp_path, plugins):
    """Terms and teacher by themselves leave the student's course alone; only weights move it."""
    schedule = {"name": "core.constant", "weights": {"feds.alignment": 1e-30}}
    losses = {"feds.alignment": {}}
    optimizer = {"name": "adam", "learning_rate": 1e-3, "clip_norm": 1e9}
    control = recipe(schedule={"name": "core.constant"}, optimizer=optimizer, num_steps=4)
    distilled = recipe(schedule=schedule, losses=losses, teacher=teacher_file, optimizer=optimizer, num_steps=4)
    a = weights(distillkit.train(control, tmp_path / "control", plugins=plugins))
    b = weights(distillkit.train(distilled, tmp_path / "distilled", plugins=plugins))
    assert same(a, b)


def test_observers_hear_of_everything(recipe, teacher_file, tmp_path, plugins):
    record = Record()
    r = recipe(losses=FEDS, teacher=teacher_file)
    distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[record])
    kinds = [event[0] for event in record.events]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "run_finished"
    phases = [event[1:] for event in record.events if event[0] == "phase_started"]
    assert phases == [("align", 0), ("channel", 4), ("finetune", 8)]
    assert [event[1] for event in record.events if event[0] == "checkpoint_saved"] == [5, 10]
    metrics = [event[1] for event in record.events if event[0] == "metrics_logged"]
    assert [m["step"] for m in metrics] == [3, 4, 6, 8, 9, 10]
    assert {"loss/feds.alignment", "weight/feds.alignment"} <= metrics[0].keys()
    assert "loss/feds.channel_entropy" in metrics[3]
    assert not any(key.startswith("loss/") for key in metrics[-1])
    assert all(isinstance(m["rate_bpp"], float) for m in metrics)
    assert metrics[-1]["learning_rate"] < metrics[2]["learning_rate"]
    assert not [p for p in plugins.manager.get_plugins() if isinstance(p, Record)]


def test_balanced_weights_have_the_ratio_of_gradient_norms(recipe, teacher_file, plugins):
    setup = prepare(resolve(recipe(losses={"feds.alignment": {}}, teacher=teacher_file), plugins), plugins)
    images = torch.rand(2, 3, 64, 64)
    task = setup.task.train()
    taps = setup.task.pairs["teacher"].run_teacher(images, sorted(task.term("feds.alignment").required_taps()))
    losses = task(images, {"teacher": Taught(taps)}, ["feds.alignment"])
    parameters = task.student.parameters()
    scale = balanced_scales(parameters, [losses], 0.5, ["feds.alignment"])["feds.alignment"]
    shared = [p for n, p in task.student.named_parameters() if n.startswith(("g_a", "g_s", "h_"))]

    def norm(loss):
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        return gradients

    pairs = [
        (a, b)
        for a, b in zip(norm(losses.rd.cost), norm(losses.terms["feds.alignment"]), strict=True)
        if a is not None and b is not None
    ]
    rd = torch.cat([a.flatten() for a, _ in pairs]).norm()
    term = torch.cat([b.flatten() for _, b in pairs]).norm()
    assert scale * term.item() == pytest.approx(0.5 * rd.item(), rel=1e-3)


def test_frozen_parts_do_not_move(recipe, tmp_path, plugins):
    class Freeze(distillkit.PhaseSchedule):
        def phases(self, num_steps, terms):
            return [
                distillkit.Phase("synthesis", 2, trainable=("g_s.*",)),
                distillkit.Phase("all", num_steps - 2),
            ]

    class Plugin:
        @distillkit.hookimpl
        def register_phase_schedules(self, register):
            register("freeze", Freeze)

    import tests.small_pair

    plugins = distillkit.load_plugins(small=tests.small_pair, mine=Plugin())
    r = recipe(schedule={"name": "mine.freeze"}, checkpoint_every=2, num_steps=4)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(2)])
    state = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["task"]
    start = prepare(resolve(r, plugins), plugins).task.state_dict()
    moved = {name.split(".")[1] for name in start if not torch.equal(start[name], state[name])}
    assert moved == {"g_s"}
    final = weights(distillkit.train(r, tmp_path / "run", plugins=plugins))
    assert not torch.equal(final["g_a.0.weight"], start["student.g_a.0.weight"])


def test_a_batch_in_channels_last_is_made_contiguous(recipe, tmp_path, plugins, monkeypatch):
    from distillkit.training.setup import data as module

    original = module.batches
    monkeypatch.setattr(module, "batches", lambda *a: (b.to(memory_format=torch.channels_last) for b in original(*a)))
    r = resolve(recipe(num_steps=2), plugins)
    run = RunFolder(tmp_path / "run")
    run.open(r)
    setup = prepare(r, plugins)
    seen = []
    setup.codec.module.register_forward_pre_hook(lambda _m, args: seen.append(args[0].is_contiguous()))
    Trainer(r, run, plugins, setup, Ranks("cpu")).run(distillkit.RunInfo("run", run.path, r, 0, 2), StopRequest())
    assert seen == [True, True]


class TestNotFinite:
    def run(self, recipe, teacher_file, tmp_path, plugins, good_calls):
        r = recipe(
            losses={"small.broken": {"good_calls": good_calls}},
            teacher=teacher_file,
            schedule={"name": "core.constant"},
            log_every=10,
            checkpoint_every=2,
        )
        distillkit.train(r, tmp_path / "run", plugins=plugins)

    def test_names_term_and_step_and_keeps_the_last_good_checkpoint(self, recipe, teacher_file, tmp_path, plugins):
        message = r"loss 'small.broken' was not finite at step 5. The checkpoint after step 4 is kept"
        with pytest.raises(TrainingError, match=message):
            self.run(recipe, teacher_file, tmp_path, plugins, good_calls=5)
        state = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
        assert state["step"] == 4
        assert all(tensor.isfinite().all() for tensor in state["task"].values() if tensor.is_floating_point())
        assert not (tmp_path / "run" / "model.safetensors").exists()

    def test_before_the_first_checkpoint(self, recipe, teacher_file, tmp_path, plugins):
        with pytest.raises(TrainingError, match="at step 0. No checkpoint was written yet"):
            self.run(recipe, teacher_file, tmp_path, plugins, good_calls=0)

    def test_a_diverging_run_is_stopped_too(self, recipe, tmp_path, plugins):
        r = recipe(optimizer={"name": "adam", "learning_rate": 1e30}, schedule={"name": "core.constant"})
        with pytest.raises(TrainingError, match="was not finite at step"):
            distillkit.train(r, tmp_path / "run", plugins=plugins)


class TestDamage:
    @pytest.fixture
    def killed(self, recipe, tmp_path, plugins):
        r = recipe(checkpoint_every=2)
        with pytest.raises(Interrupt):
            distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(6)])
        return r, list_checkpoints(tmp_path / "run" / "checkpoints")

    def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(self, killed, tmp_path, plugins):
        r, (older, newer) = killed
        data = bytearray(newer.read_bytes())
        data[-100] ^= 1
        newer.write_bytes(data)
        record = Record()
        resumed = distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[record])
        _, start, _, notes = record.events[0]
        assert start == 4
        assert any("step-00000006.safetensors: damaged" in note and "one before" in note for note in notes)
        assert same(weights(resumed), weights(distillkit.train(r, tmp_path / "whole", plugins=plugins)))

    def test_all_damaged_is_an_error(self, killed, tmp_path, plugins):
        r, paths = killed
        for path in paths:
            path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
            distillkit.train(r, tmp_path / "run", plugins=plugins)

    def test_a_teacher_that_changed_is_an_error(self, recipe, teacher_file, tmp_path, plugins):
        teacher = tmp_path / "teacher.safetensors"
        shutil.copy(teacher_file, teacher)
        r = recipe(losses=FEDS, teacher=teacher, checkpoint_every=2)
        with pytest.raises(Interrupt):
            distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(2)])
        other = recipe(trains="teacher", schedule={"name": "core.constant"}, num_steps=1, seed=7)
        shutil.copy(distillkit.train(other, tmp_path / "other", plugins=plugins), teacher)
        with pytest.raises(CheckpointError, match="the weights of teacher changed since the run began"):
            distillkit.train(r, tmp_path / "run", plugins=plugins)


class TestBadInput:
    def refused(self, error, match, recipe, tmp_path, plugins):
        with pytest.raises(error, match=match):
            distillkit.train(recipe, tmp_path / "run", plugins=plugins)

    def test_a_misspelt_tap(self, recipe, teacher_file, tmp_path, plugins):
        r = recipe(losses={"feds.alignment": {"taps": ["latnt"]}}, teacher=teacher_file)
        self.refused(RecipeError, r"recipe losses.feds.alignment: .*Did you mean 'latent'", r, tmp_path, plugins)

    def test_a_wider_student(self, recipe, teacher_file, tmp_path, plugins):
        r = recipe(losses=FEDS, teacher=teacher_file, pair={"name": "small.pair", "student_latent": 20})
        self.refused(RecipeError, "at most 16 channels", r, tmp_path, plugins)

    def test_another_lmbda_than_the_teachers(self, recipe, teacher_file, tmp_path, plugins):
        r = recipe(losses=FEDS, teacher=teacher_file, lmbda=0.05)
        self.refused(PairError, "trained for lmbda 0.013, this run is for 0.05", r, tmp_path, plugins)

    def test_a_crop_that_does_not_suit_the_codec(self, recipe, photographs, tmp_path, plugins):
        r = recipe(data={"train": photographs, "crop": 90, "batch_size": 2})
        self.refused(RecipeError, "data.crop: expected a multiple of 64, got 90", r, tmp_path, plugins)

    def test_a_folder_of_another_recipe(self, recipe, tmp_path, plugins):
        distillkit.train(recipe(num_steps=1), tmp_path / "run", plugins=plugins)
        self.refused(TrainingError, "seed: 0 there, 1 now", recipe(num_steps=1, seed=1), tmp_path, plugins)

    def test_a_folder_that_is_no_run(self, recipe, tmp_path, plugins):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("")
        self.refused(TrainingError, "it holds other files", recipe(), tmp_path, plugins)

    def test_a_teacher_that_is_no_model(self, recipe, tmp_path, plugins):
        (tmp_path / "x.safetensors").write_bytes(b"not a model")
        r = recipe(losses=FEDS, teacher=tmp_path / "x.safetensors")
        self.refused(CheckpointError, "x.safetensors: cannot be read", r, tmp_path, plugins)

    def test_a_tap_that_only_the_teacher_has(self, recipe, teacher_file, tmp_path):
        class Hyper(distillkit.LossTerm):
            def required_taps(self):
                return {"elsewhere"}

            def forward(self, step):
                return step.taps["elsewhere"].student.mean()

        class Plugin:
            @distillkit.hookimpl
            def register_loss_terms(self, register):
                register("hyper", Hyper)

        import tests.small_pair

        plugins = distillkit.load_plugins(small=tests.small_pair, mine=Plugin())
        r = recipe(losses={"mine.hyper": {}}, teacher=teacher_file, schedule={"name": "core.constant"})
        self.refused(
            TapError, "recipe losses.mine.hyper: no tap 'elsewhere' in teacher or student", r, tmp_path, plugins
        )

    def test_bad_images_are_refused_or_left_out(self, recipe, photographs, tmp_path, plugins):
        from PIL import Image

        folder = tmp_path / "images"
        shutil.copytree(photographs, folder)
        Image.new("L", (80, 80)).save(folder / "grey.png")
        data = {"train": folder, "crop": 64, "batch_size": 2}
        with pytest.raises(distillkit.DistillkitError, match=r"grey.png: expected 8-bit RGB, got greyscale"):
            distillkit.train(recipe(data=data), tmp_path / "a", plugins=plugins)
        record = Record()
        skip = recipe(data={**data, "bad_images": "skip"}, num_steps=1)
        distillkit.train(skip, tmp_path / "b", plugins=plugins, observers=[record])
        assert any("left out" in note and "grey.png" in note for note in record.events[0][3])


def test_the_student_loads_alone_and_decodes_what_it_codes(recipe, teacher_file, tmp_path, plugins, photographs):
    model = distillkit.train(recipe(losses=FEDS, teacher=teacher_file), tmp_path / "run", plugins=plugins)
    alone = shutil.copy(model, tmp_path / "student.safetensors")
    shutil.rmtree(tmp_path / "run")
    student = distillkit.load_model(alone, plugins)
    assert not any("adapter" in name or "terms" in name for name in student.codec.module.state_dict())
    codec = distillkit.ImageCodec(student.codec, student.fingerprint)
    picture = distillkit.read_image(next(iter(sorted(photographs.iterdir()))))
    assert codec.decode(codec.encode(picture)).shape == picture.shape


def test_a_finished_run_is_left_as_it_is(recipe, tmp_path, plugins):
    r = recipe(num_steps=1)
    model = distillkit.train(r, tmp_path / "run", plugins=plugins)
    before = model.stat().st_mtime_ns
    record = Record()
    assert distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[record]) == model
    assert model.stat().st_mtime_ns == before
    assert record.events == []


def test_a_term_that_comes_on_late_is_balanced_when_it_does(recipe, teacher_file, tmp_path):
    class Late(distillkit.PhaseSchedule):
        def phases(self, num_steps, terms):
            rise = distillkit.Ramp(0.0, 1.0, num_steps)
            return [distillkit.Phase("late", num_steps, {"feds.alignment": rise}, balance=0.5)]

    class Plugin:
        @distillkit.hookimpl
        def register_phase_schedules(self, register):
            register("late", Late)

    import tests.small_pair

    plugins = distillkit.load_plugins(small=tests.small_pair, mine=Plugin())
    r = recipe(
        losses={"feds.alignment": {}}, teacher=teacher_file, schedule={"name": "mine.late"}, num_steps=3, log_every=1
    )
    record = Record()
    distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[record])
    metrics = [event[1] for event in record.events if event[0] == "metrics_logged"]
    assert "weight/feds.alignment" not in metrics[0]
    assert metrics[2]["weight/feds.alignment"] == pytest.approx(2 * metrics[1]["weight/feds.alignment"])
    assert metrics[1]["weight/feds.alignment"] != pytest.approx(1 / 3)


def test_an_observer_with_a_misspelt_hook_is_refused(recipe, tmp_path, plugins):
    class Misspelt:
        @distillkit.hookimpl
        def metric_logged(self, metrics):
            pass

    with pytest.raises(PluginError, match=r"observer Misspelt: there is no hook 'metric_logged'. Did you mean 'metri"):
        distillkit.train(recipe(), tmp_path / "run", plugins=plugins, observers=[Misspelt()])


def test_weights_that_are_not_finite_are_not_saved(recipe, tmp_path, plugins):
    class Poison:
        @distillkit.hookimpl
        def phase_started(self, run, step):
            trainer.parameters[0].data[0] = float("inf")

    r = resolve(recipe(num_steps=1, optimizer={"name": "adam", "learning_rate": 1e-30}), plugins)
    run = RunFolder(tmp_path / "run")
    run.open(r)
    setup = prepare(r, plugins)
    trainer = Trainer(r, run, plugins, setup, Ranks("cpu"))
    with plugins.observing([Poison()]), pytest.raises(TrainingError, match="not finite at step 0"):
        trainer.run(distillkit.RunInfo("run", run.path, r, 0, 1), StopRequest())
    assert not list_checkpoints(run.checkpoints)


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (signal.SIGTERM, pytest.raises(TrainingStopped, match="stopped after step 3 of 10, and saved")),
        (signal.SIGINT, pytest.raises(KeyboardInterrupt)),
    ],
)
def test_a_signal_saves_the_step_in_hand_and_the_run_goes_on_bit_for_bit(
    recipe, teacher_file, tmp_path, plugins, number, raised
):
    """Neither a scheduler nor Ctrl-C costs a step; with 10 steps, checkpoints would be at 5 and 10 only."""

    class Preempt:
        @distillkit.hookimpl
        def metrics_logged(self, metrics):
            if metrics["step"] == 3:
                os.kill(os.getpid(), number)

    whole = recipe(losses=FEDS, teacher=teacher_file)
    before = signal.getsignal(number)
    with raised:
        distillkit.train(whole, tmp_path / "run", plugins=plugins, observers=[Preempt()])
    assert signal.getsignal(number) is before
    assert [path.stem for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000003"]
    resumed = weights(distillkit.train(whole, tmp_path / "run", plugins=plugins))
    expected = weights(distillkit.train(whole, tmp_path / "whole", plugins=plugins))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.fixture
def heeded():
    """Ctrl-C as in a terminal, also where the tests run in the background, which ignores it; returns its handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_stops_at_once(recipe, teacher_file, tmp_path, plugins, heeded):

    class Impatient:
        @distillkit.hookimpl
        def metrics_logged(self, metrics):
            if metrics["step"] == 3:
                signal.raise_signal(signal.SIGINT)
                while signal.getsignal(signal.SIGINT) is not heeded:  # Python handles a signal a moment later
                    time.sleep(0.001)
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        distillkit.train(
            recipe(losses=FEDS, teacher=teacher_file), tmp_path / "run", plugins=plugins, observers=[Impatient()]
        )
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


class Shaky:
    """An observer that raises in one hook, draws random numbers, and counts its calls."""

    def __init__(self, hook):
        self.hook, self.calls = hook, []

    def note(self, hook):
        torch.rand(7)
        self.calls.append(hook)
        if hook == self.hook:
            raise ValueError("no such disk")

    @distillkit.hookimpl
    def run_started(self):
        self.note("run_started")

    @distillkit.hookimpl
    def phase_started(self):
        self.note("phase_started")

    @distillkit.hookimpl
    def metrics_logged(self):
        self.note("metrics_logged")

    @distillkit.hookimpl
    def checkpoint_saved(self):
        self.note("checkpoint_saved")

    @distillkit.hookimpl
    def run_finished(self):
        self.note("run_finished")

    def close(self):
        self.note("close")


@pytest.mark.parametrize(
    "hook", ["run_started", "phase_started", "metrics_logged", "checkpoint_saved", "run_finished", "close", "none"]
)
def test_an_observer_that_raises_is_reported_and_left_out_and_the_run_is_unchanged(
    hook, recipe, tmp_path, plugins, caplog
):
    r = recipe(num_steps=2, log_every=1, checkpoint_every=1)
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    shaky, record = Shaky(hook), Record()
    watched = distillkit.train(r, tmp_path / "watched", plugins=plugins, observers=[record, shaky])
    assert same(weights(whole), weights(watched))
    assert record.events[-1] == ("run_finished",)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == (hook != "none")
    for warning in warnings:
        assert warning.startswith(f"observer Shaky: {hook} raised ValueError: no such disk (")
        assert "test_training.py, line" in warning
        assert shaky.calls.count(hook) == 1
        assert set(shaky.calls[shaky.calls.index(hook) + 1 :]) <= {"close"}


def test_a_plugin_that_observes_is_left_out_for_this_run_alone(recipe, tmp_path, caplog):
    import tests.small_pair

    shaky = Shaky("run_started")
    plugins = distillkit.load_plugins(small=tests.small_pair, shaky=shaky)
    for name in ("a", "b"):
        distillkit.train(recipe(num_steps=1), tmp_path / name, plugins=plugins)
    assert shaky.calls == ["run_started"] * 2
    assert len(caplog.records) == 2


def test_an_observer_may_stop_the_run(recipe, tmp_path, plugins):
    class Enough:
        @distillkit.hookimpl
        def checkpoint_saved(self, step):
            raise distillkit.TrainingStopped(f"enough after {step}")

    with pytest.raises(distillkit.TrainingStopped, match="enough after 5"):
        distillkit.train(recipe(), tmp_path / "run", plugins=plugins, observers=[Enough()])
