"""Phases, schedules and learning rates are pure functions of the step; every boundary by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillkit.errors import RecipeError
from distillkit.hooks.builtin import Constant
from distillkit.training.phases import Phase, Ramp, Timeline


def test_ramp_down():
    ramp = Ramp(1.0, 0.0, 4)
    assert [ramp.at(step) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_ramp_up_from_a_level():
    ramp = Ramp(0.5, 2.5, 2)
    assert [ramp.at(step) for step in range(4)] == [0.5, 1.5, 2.5, 2.5]


def test_ramp_of_no_steps_stands_at_its_end():
    assert Ramp(1.0, 0.25, 0).at(0) == 0.25


def test_weights_at_leaves_out_what_is_off():
    phase = Phase("p", 10, {"fixed": 2.0, "off": 0.0, "falling": Ramp(1.0, 0.0, 2), "rising": Ramp(0.0, 1.0, 2)})
    assert phase.weights_at(0) == {"fixed": 2.0, "falling": 1.0}
    assert phase.weights_at(1) == {"fixed": 2.0, "falling": 0.5, "rising": 0.5}
    assert phase.weights_at(2) == phase.weights_at(9) == {"fixed": 2.0, "rising": 1.0}


def test_terms_in_one_of_so_many_steps_at_so_many_times_their_weight():
    phase = Phase("p", 10, {"fixed": 2.0, "falling": Ramp(1.0, 0.0, 4)}, every=3)
    on = {"fixed": 6.0}
    assert [phase.weights_at(step) for step in range(7)] == [
        on | {"falling": 3.0},
        {},
        {},
        on | {"falling": 0.75},
        {},
        {},
        on,
    ]


@pytest.mark.parametrize("every", [0, -1])
def test_in_every_step_is_the_least(every):
    with pytest.raises(RecipeError, match=rf"^schedule: phase 'a': expected every >= 1, got {every}"):
        Timeline([Phase("a", 2, every=every)], 2, [])


def test_timeline_at_every_step():
    timeline = Timeline([Phase("a", 2), Phase("b", 1), Phase("c", 3)], 6, [])
    expected = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]
    assert [timeline.at(step) for step in range(6)] == expected


def test_timeline_skips_phases_of_no_steps():
    phases = [Phase("none", 0), Phase("a", 1), Phase("none either", 0), Phase("b", 1), Phase("nor this", 0)]
    timeline = Timeline(phases, 2, [])
    assert [phase.name for phase in timeline.phases] == ["a", "b"]
    assert [timeline.at(step) for step in range(2)] == [(0, 0), (1, 0)]


@pytest.mark.parametrize("lengths", [(2, 3), (2, 5), (6, 1), (0, 0)])
def test_wrong_sum(lengths):
    with pytest.raises(RecipeError, match=r"^schedule: expected phases of 6 steps together, got "):
        Timeline([Phase("a", lengths[0]), Phase("b", lengths[1])], 6, [])


def test_negative_length():
    with pytest.raises(RecipeError, match=r"^schedule: .*b -1"):
        Timeline([Phase("a", 7), Phase("b", -1)], 6, [])
    with pytest.raises(RecipeError, match=r"^schedule: .*b -1"):
        Timeline([Phase("a", 6), Phase("b", -1)], 6, [])


def test_no_phases():
    with pytest.raises(RecipeError, match="expected phases of 6 steps together, got none"):
        Timeline([], 6, [])


def test_unknown_term_with_suggestion():
    with pytest.raises(RecipeError, match=r"'feds.alignement'.* Did you mean 'feds.alignment'\?"):
        Timeline([Phase("a", 6, {"feds.alignement": 1.0, "feds.alignment": 1.0})], 6, ["feds.alignment"])


def test_unused_term():
    with pytest.raises(RecipeError, match=r"^recipe losses.two: no phase"):
        Timeline([Phase("a", 6, {"one": 1.0})], 6, ["one", "two"])


def test_term_of_a_phase_of_no_steps_is_unused():
    with pytest.raises(RecipeError, match=r"^recipe losses.two: no phase"):
        Timeline([Phase("a", 6, {"one": 1.0}), Phase("b", 0, {"two": 1.0})], 6, ["one", "two"])


def test_constant_schedule():
    schedule = Constant(Constant.Config(weights={"two": 0.5}, balance=0.25))
    (phase,) = schedule.phases(7, ["one", "two"])
    assert (phase.num_steps, phase.weights, phase.balance) == (7, {"one": 1.0, "two": 0.5}, 0.25)
    assert (phase.learning_rate, phase.trainable) == (1.0, ("*",))
    Timeline([phase], 7, ["one", "two"])


def test_constant_schedule_by_default_takes_weights_as_they_are():
    (phase,) = Constant(Constant.Config()).phases(3, ["one"])
    assert phase.weights == {"one": 1.0}
    assert phase.balance is None


def test_a_run_without_a_teacher_leaves_out_what_is_not_there_and_trains_on_rate_and_distortion():
    phase = Phase("p", 4, {"taught": Ramp(1.0, 0.0, 4), "quiet": 0.5}, balance=0.2, rd_weight=0.4, learning_rate=0.1)
    kept = phase.without_teacher(["quiet"])
    assert (kept.weights, kept.rd_weight, kept.balance, kept.learning_rate) == ({"quiet": 0.5}, 1.0, 0.2, 0.1)
    alone = phase.without_teacher([])
    assert (alone.weights, alone.rd_weight, alone.balance) == ({}, 1.0, None)
    Timeline([alone], 4, [])


def test_a_run_whose_schedule_names_its_terms_alone_is_as_it_was_written():
    phase = Phase("p", 4, {"quiet": 0.5}, rd_weight=0.0)
    assert phase.without_teacher(["quiet"]) == phase
    assert Phase("p", 4, rd_weight=0.0).without_teacher([]).rd_weight == 1.0


@pytest.mark.parametrize("options", [{"weights": {"one": 0.0}}, {"weights": {"one": -1.0}}, {"balance": 0.0}])
def test_constant_schedule_refuses_weights_that_do_nothing(options):
    with pytest.raises(ValidationError):
        Constant.Config(**options)


def test_constant_schedule_with_a_weight_for_a_term_that_is_not_there():
    phases = Constant(Constant.Config(weights={"tow": 0.5})).phases(7, ["two"])
    with pytest.raises(RecipeError, match=r"'tow'.* Did you mean 'two'\?"):
        Timeline(phases, 7, ["two"])
