"""Validation in the run, the best model, and a run that is given more steps."""

from __future__ import annotations

import io
import json

import pytest
import torch
from PIL import Image
from rich.console import Console

import distillkit
from distillkit.errors import DataError, RecipeError, TrainingError
from distillkit.model.tensors import read_tensors
from distillkit.training.objectives.objective import rate_distortion

from .test_training import Interrupt, Record, StopAfter, same, weights

CONSTANT = {"name": "core.constant"}


class Watch(Record):
    @distillkit.hookimpl
    def validated(self, run, metrics):
        self.events.append(("validated", dict(metrics)))


@pytest.fixture
def validated(recipe, held_out):
    def build(**changes):
        validation = {"data": held_out, "every": 2, "crops": 3, **changes.pop("validation", {})}
        optimizer = {"name": "adam", "learning_rate": 1e-3}
        return recipe(
            **{"validation": validation, "num_steps": 5, "schedule": CONSTANT, "optimizer": optimizer} | changes
        )

    return build


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("height", "crop"), [(96, 64), (128, 128)])
def test_it_measures_held_out_crops_and_leaves_the_run_alone(
    height, crop, validated, recipe, tmp_path, plugins, held_out
):
    """Of twice the side of the training crops of 64 where every picture has it."""
    folder = tmp_path / "held-out"
    folder.mkdir()
    for path in held_out.iterdir():
        with Image.open(path) as picture:
            picture.resize((128, height)).save(folder / path.name)
    watch = Watch()
    console = Console(file=io.StringIO(), width=200)
    observers = [watch, distillkit.ProgressDisplay(console)]
    model = distillkit.train(
        validated(validation={"save": "last", "data": folder}), tmp_path / "a", plugins=plugins, observers=observers
    )
    seen = [event[1] for event in watch.events if event[0] == "validated"]
    assert [metrics["step"] for metrics in seen] == [2, 4, 5]
    plain = recipe(num_steps=5, schedule=CONSTANT, optimizer={"name": "adam", "learning_rate": 1e-3})
    assert same(weights(model), weights(distillkit.train(plain, tmp_path / "b", plugins=plugins)))
    # by hand, on the crops that the validation draws
    from distillkit.data.crops import CropDataset
    from distillkit.data.shards import list_training_images

    crops = CropDataset(list_training_images(folder)[0], crop, 2**33)
    images = torch.stack([crops[sample] for sample in range(3)]) / 255
    codec = distillkit.load_model(model, plugins).codec
    with torch.no_grad():
        expected = rate_distortion(codec.forward(images), images, 0.013)
    assert seen[-1]["rd_cost"] == pytest.approx(expected.cost.item(), rel=1e-3)
    assert seen[-1]["rate_bpp"] == pytest.approx(
        expected.rate_bpp.item(), rel=0.02
    )  # its tables are solved for when it is saved
    written = [line for line in lines(tmp_path / "a") if "validation/rd_cost" in line]
    assert written == [{("" if k == "step" else "validation/") + k: v for k, v in each.items()} for each in seen]
    text = console.file.getvalue()
    assert f"step 4/5  held out: {seen[1]['rate_bpp']:.3f} bpp" in text
    assert "model.safetensors is the last (best: step" in text


def test_the_best_model_is_the_runs(validated, tmp_path, plugins):
    """A learning rate far too high: the first validation stays the best."""
    watch = Watch()
    wild = {"name": "sgd", "learning_rate": 1.0, "rate_schedule": {"name": "step", "at": [1], "factor": 0.999}}
    r = validated(optimizer=wild, validation={"every": 1})
    model = distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[watch])
    seen = [event[1] for event in watch.events if event[0] == "validated"]
    costs = [metrics["rd_cost"] for metrics in seen]
    best = costs.index(min(costs))
    assert best < 4
    assert seen[-1]["best_step"] == best + 1
    assert seen[-1]["best_rd_cost"] == costs[best]
    assert json.loads(read_tensors(model)[1]["validation"])["step"] == best + 1
    last = distillkit.train(
        validated(optimizer=wild, validation={"every": 1, "save": "last"}), tmp_path / "last", plugins=plugins
    )
    assert not same(weights(model), weights(last))


def test_the_best_model_after_a_kill_is_that_of_the_whole_run(validated, tmp_path, plugins):
    r = validated(checkpoint_every=1, validation={"every": 1})
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "killed", plugins=plugins, observers=[StopAfter(3)])
    resumed = distillkit.train(r, tmp_path / "killed", plugins=plugins)
    assert same(weights(whole), weights(resumed))
    assert read_tensors(whole)[1]["validation"] == read_tensors(resumed)[1]["validation"]
    costs = [lines(folder)[-1]["validation/rd_cost"] for folder in (whole.parent, resumed.parent)]
    assert costs[0] == costs[1]


def test_what_is_wrong_is_reported(validated, recipe, tmp_path, plugins, photographs):
    empty = tmp_path / "empty"
    empty.mkdir()
    for data, error, message in (
        (photographs, RecipeError, r"recipe validation.data: expected pictures that are held out, got 3 of data.train"),
        (empty, DataError, "empty"),
    ):
        with pytest.raises(error, match=message):
            distillkit.train(validated(validation={"data": data}), tmp_path / "run", plugins=plugins)
    with pytest.raises(RecipeError, match="validation.save"):
        validated(validation={"save": "worst"})


class TestLengthening:
    def test_a_finished_run_continues_as_if_it_had_had_the_steps_from_the_start(self, validated, tmp_path, plugins):
        r, longer = validated(checkpoint_every=5), validated(num_steps=8, checkpoint_every=5)
        short = distillkit.train(r, tmp_path / "run", plugins=plugins)
        before = short.read_bytes()
        record = Record()
        distillkit.train(longer, tmp_path / "run", plugins=plugins, observers=[record])
        _, start, num_steps, notes = record.events[0]
        assert (start, num_steps) == (5, 8)
        assert any(note.startswith("lengthened from 5 to 8 steps") for note in notes)
        assert not any("rate schedule" in note for note in notes)
        assert (tmp_path / "run" / "model-00000005.safetensors").read_bytes() == before
        whole = distillkit.train(longer, tmp_path / "whole", plugins=plugins)
        assert same(weights(whole), weights(short))
        again = Record()
        assert distillkit.train(longer, tmp_path / "run", plugins=plugins, observers=[again]) == short
        assert again.events == []

    def test_a_cosine_and_a_schedule_of_phases_say_what_it_means(self, recipe, tmp_path, plugins):
        r = recipe(num_steps=5)
        distillkit.train(r, tmp_path / "run", plugins=plugins)
        record = Record()
        with pytest.raises(Interrupt):
            distillkit.train(
                recipe(num_steps=10, checkpoint_every=1),
                tmp_path / "run",
                plugins=plugins,
                observers=[record, StopAfter(7)],
            )
        notes = record.events[0][3]
        assert any("core.cosine spans all 10 steps: the learning rate, which was at 0.095 of" in note for note in notes)
        assert any("after phase 'finetune' the run continues in 'channel'" in note for note in notes)
        assert not (tmp_path / "run" / "model.safetensors").exists()  # stopped on the way: not done
        distillkit.train(recipe(num_steps=10), tmp_path / "run", plugins=plugins)

    def test_other_keys_must_be_the_same_and_there_must_be_a_checkpoint(self, recipe, tmp_path, plugins):
        distillkit.train(recipe(num_steps=2), tmp_path / "run", plugins=plugins)
        with pytest.raises(TrainingError, match="seed: 0 there, 1 now"):
            distillkit.train(recipe(num_steps=3, seed=1), tmp_path / "run", plugins=plugins)
        with pytest.raises(TrainingError, match="num_steps: 2 there, 1 now"):
            distillkit.train(recipe(num_steps=1), tmp_path / "run", plugins=plugins)
        for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
            checkpoint.unlink()
        with pytest.raises(TrainingError, match="it has 2 steps and no checkpoint from which it could continue to 3"):
            distillkit.train(recipe(num_steps=3), tmp_path / "run", plugins=plugins)
        assert (tmp_path / "run" / "model.safetensors").exists()


def test_observers_see_copies_of_the_model(validated, tmp_path, plugins):
    class Meddler:
        def __init__(self):
            self.states = {}

        @distillkit.hookimpl
        def metrics_logged(self, run, metrics):
            codec = run.model.copy()
            assert not codec.module.training
            self.states[metrics["step"]] = run.model.state_dict()
            for tensor in (*codec.module.state_dict().values(), *run.model.state_dict().values()):
                tensor.zero_()

    r = validated(validation={"save": "last"}, log_every=1)
    meddler = Meddler()
    meddled = distillkit.train(r, tmp_path / "a", plugins=plugins, observers=[meddler])
    assert same(weights(meddled), weights(distillkit.train(r, tmp_path / "b", plugins=plugins)))
    final = weights(meddled)
    assert torch.equal(meddler.states[5]["g_a.0.weight"], final["g_a.0.weight"])
    assert not torch.equal(meddler.states[4]["g_a.0.weight"], final["g_a.0.weight"])
