"""Optimisers and rate schedules: values by hand, what a recipe may say, and runs of before."""

from __future__ import annotations

import json
import math

import pytest

import distillkit
from distillkit.errors import RecipeError
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.pace.pace import Pace, rate_schedule
from distillkit.training.setup.resolve import resolve

from .test_training import Interrupt, StopAfter, same, weights


def rates(recipe, plugins, num_steps, places, **optimizer):
    resolved = resolve(recipe(num_steps=num_steps, optimizer=optimizer, schedule={"name": "core.constant"}), plugins)
    setup = distillkit.load_model("zoo:lite-student").codec.module
    pace = Pace(resolved, plugins, list(setup.parameters()))
    found = []
    for place in places:
        pace.set(place, 1.0)
        found.append(pace.learning_rate / resolved.optimizer.learning_rate)
    return found


@pytest.mark.parametrize(
    ("optimizer", "num_steps", "places", "expected"),
    [
        ({}, 10, range(10), [1.0] * 10),
        ({"warmup_steps": 4}, 10, range(6), [0.25, 0.5, 0.75, 1, 1, 1]),
        ({"warmup_steps": 100}, 10, [9], [0.1]),
        ({"rate_schedule": "cosine"}, 4, range(4), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ({"rate_schedule": {"name": "core.cosine"}, "warmup_steps": 4}, 8, [0, 4], [0.25, 0.5]),
        ({"rate_schedule": {"name": "step", "at": [2, 4], "factor": 0.5}}, 6, range(6), [1, 1, 0.5, 0.5, 0.25, 0.25]),
    ],
)
def test_the_learning_rate(optimizer, num_steps, places, expected, recipe, plugins):
    assert rates(recipe, plugins, num_steps, places, **optimizer) == pytest.approx(expected)


def test_plateau(recipe, plugins, photographs):
    choice = {"name": "plateau", "factor": 0.5, "patience": 2, "improvement": 0.1, "lowest": 0.3}
    validation = {"data": photographs, "every": 1}
    resolved = resolve(recipe(optimizer={"rate_schedule": choice}, validation=validation), plugins)
    schedule = rate_schedule(resolved, plugins)
    factors = []
    for cost in (10, 8, 7.5, 7.4, 7.0, 7.1, 7.1, 7.1, 7.1):  # 8 is better, 7.5 and 7.4 are not by a tenth, 7.0 is
        schedule.validated(cost)
        factors.append(schedule.factor(0, 1))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "sgd", "soap"])
def test_short_names_of_the_core_and_options(name, recipe, plugins):
    resolved = resolve(recipe(optimizer={"name": name}), plugins)
    assert resolved.optimizer.name == f"core.{name}"
    assert resolve(distillkit.Recipe.create(**resolved.model_dump()), plugins) == resolved
    assert resolve(recipe(optimizer={"name": f"core.{name}"}), plugins) == resolved


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "adma"}, "recipe optimizer: no optimizer 'core.adma' is registered.*Did you mean 'core.adam'"),
        ({"name": "lion"}, "recipe optimizer: no optimizer 'core.lion' is registered"),
        ({"zzz": 1}, "recipe optimizer: zzz: unknown key. Known keys: aux_learning_rate, betas, clip_norm"),
        ({"learning_rat": 1}, "recipe optimizer: learning_rat: unknown key. Did you mean 'learning_rate'"),
        (
            {"name": "adamw", "weight_dcay": 1},
            "recipe optimizer: weight_dcay: unknown key. Did you mean 'weight_decay'",
        ),
        (
            {"name": "adamw", "weight_decay": -1},
            "recipe optimizer: weight_decay: .* greater than or equal to 0, got -1",
        ),
        (
            {"rate_schedule": "cosin"},
            "recipe optimizer.rate_schedule: no rate 'core.cosin'.*Did you mean 'core.cosine'",
        ),
        ({"rate_schedule": "step"}, "recipe optimizer.rate_schedule: at: missing"),
        ({"rate_schedule": "plateau"}, r"core.plateau follows the validation, and there is none; add a table \[valid"),
    ],
)
def test_what_is_wrong_is_reported(optimizer, message, recipe, plugins):
    with pytest.raises(RecipeError, match=message):
        resolve(recipe(optimizer=optimizer), plugins)


def test_options_reach_the_optimizer(recipe, plugins, tmp_path):
    base = {"name": "adamw", "learning_rate": 1e-3}
    runs = [
        distillkit.train(recipe(num_steps=2, optimizer={**base, **more}), tmp_path / str(number), plugins=plugins)
        for number, more in enumerate([{}, {"weight_decay": 0.5}, {"betas": [0.5, 0.6]}])
    ]
    assert not same(weights(runs[0]), weights(runs[1]))
    assert not same(weights(runs[0]), weights(runs[2]))


def test_a_run_folder_of_before_continues(recipe, plugins, tmp_path):
    """A recipe with the closed list's names, and a checkpoint without the state of a rate schedule or extensions."""
    r = recipe(num_steps=4, checkpoint_every=2, schedule={"name": "core.constant"})
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[StopAfter(2)])
    run = RunFolder(tmp_path / "run")
    text = run.recipe_file.read_text()
    a = text.index("[optimizer]")
    b = text.index("\n[", text.index("[optimizer.rate_schedule]") + 1) if "\n[" in text[a + 30 :] else len(text)
    old = 'name = "soap"\nlearning_rate = 0.001\nrate_schedule = "cosine"\nwarmup_steps = 2\n'
    run.recipe_file.write_text(text[:a] + "[optimizer]\n" + old + text[b:].replace("[extensions]\n", ""))
    resumed = distillkit.train(distillkit.Recipe.load(run.recipe_file), run.path, plugins=plugins)
    assert same(weights(whole), weights(resumed))


def test_plateau_is_resumed_bit_for_bit(recipe, plugins, tmp_path, held_out):
    plateau = {"name": "plateau", "patience": 1, "improvement": 0.9}  # no validation but the first is so much better
    r = recipe(
        num_steps=6,
        log_every=1,
        checkpoint_every=1,
        optimizer={"name": "adam", "learning_rate": 1e-3, "rate_schedule": plateau},
        validation={"data": held_out, "every": 1, "crops": 2},
        schedule={"name": "core.constant"},
    )
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    with pytest.raises(Interrupt):
        distillkit.train(r, tmp_path / "killed", plugins=plugins, observers=[StopAfter(3)])
    resumed = distillkit.train(r, tmp_path / "killed", plugins=plugins)
    lines = [
        [json.loads(x) for x in (path.parent / "metrics.jsonl").read_text().splitlines()] for path in (whole, resumed)
    ]
    rates = [[line["learning_rate"] for line in run if "learning_rate" in line] for run in lines]
    assert rates[0] == rates[1] == [1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5]
    costs = [[line["validation/rd_cost"] for line in run if "validation/rd_cost" in line] for run in lines]
    assert costs[0] == costs[1]
    assert len(costs[0]) == 6
    assert same(weights(whole), weights(resumed))
