"""Steps that are recorded once and replayed, with a stand-in for CUDA graphs that repeats torch's operators."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import distillkit
from distillkit.testing.recorded import RecordedGraph
from distillkit.training.step.graphs import CannotCaptureError
from tests.training.test_training import FEDS, StopAfter, same, weights

MUON = {"optimizer": {"name": "muon", "learning_rate": 1e-3, "rate_schedule": "cosine", "warmup_steps": 2}}


class Counted:
    """Graphs, and how often they were recorded and replayed."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self):
        graph = RecordedGraph()
        counted = self

        class Graph:
            def capture(self, work):
                counted.recorded += 1
                graph.capture(work)

            def replay(self):
                counted.replayed += 1
                graph.replay()

        return Graph()


@pytest.fixture
def graphs(monkeypatch):
    counted = Counted()
    monkeypatch.setattr("distillkit.training.step.step.graphs_of", lambda device: lambda: counted)
    return counted


def lines(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds_per_step"} for row in rows]


def both(r, folder, plugins):
    """Train eagerly and by replay; compare figures and weights up to rounding."""
    models = [
        distillkit.train(r.model_copy(update={"compile": choice}), folder / choice, plugins=plugins)
        for choice in ("none", "graph")
    ]
    for eager, replayed in zip(lines(folder / "none"), lines(folder / "graph"), strict=True):
        assert eager["phase"] == replayed["phase"]
        numbers = {key: value for key, value in eager.items() if key != "phase"}
        assert {key: replayed[key] for key in numbers} == pytest.approx(numbers, rel=1e-4)
    eager, replayed = map(weights, models)
    assert all(torch.allclose(eager[name].float(), replayed[name].float(), rtol=1e-3, atol=1e-5) for name in eager)


@pytest.mark.slow
def test_feds_with_weights_and_rates_that_change_in_every_step(recipe, teacher_file, tmp_path, plugins, graphs):
    r = recipe(losses=FEDS, teacher=teacher_file, num_steps=24, **MUON, extensions={"core.ema": {}}, log_every=1)
    both(r, tmp_path, plugins)
    assert graphs.recorded >= 2 * 3  # two graphs a kind of step, at least one kind a phase
    assert graphs.replayed >= 2 * 8


def test_a_teacher_in_every_second_step_makes_two_kinds_of_step(recipe, teacher_file, tmp_path, plugins, graphs):
    schedule = {"name": "feds.staged", "every": 2, "alignment_share": 1.0, "channel_share": 0.0}
    losses = {"feds.alignment": {}}
    r = recipe(losses=losses, teacher=teacher_file, num_steps=12, schedule=schedule, **MUON, accumulate=2)
    both(r, tmp_path, plugins)
    assert graphs.recorded == 4
    assert graphs.replayed > 4


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_optimisers_that_can_and_cannot_be_recorded(recipe, tmp_path, plugins, graphs, optimizer):
    chosen = {"optimizer": {"name": optimizer, "learning_rate": 1e-3, "rate_schedule": "cosine"}}
    both(recipe(num_steps=8, schedule={"name": "core.constant"}, **chosen), tmp_path, plugins)
    assert graphs.replayed == 2 * 5


def test_many_rates(recipe, tmp_path, plugins, graphs):
    many = {"pair": {"name": "small.gained"}, "lmbda": {"low": 0.002, "high": 0.05}}
    both(recipe(num_steps=6, schedule={"name": "core.constant"}, **many, **MUON), tmp_path, plugins)
    assert graphs.replayed == 2 * 3


def test_a_run_that_continues_ends_bit_for_bit_as_one_that_never_stopped(
    recipe, teacher_file, tmp_path, plugins, graphs
):
    r = recipe(losses=FEDS, teacher=teacher_file, num_steps=20, **MUON, compile="graph")
    whole = distillkit.train(r, tmp_path / "whole", plugins=plugins)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - of the observer
        distillkit.train(r, tmp_path / "parts", plugins=plugins, observers=[StopAfter(10)])
    parts = distillkit.train(r, tmp_path / "parts", plugins=plugins)
    assert same(weights(parts), weights(whole))


class Numbered(distillkit.LossTerm):
    """Reads the step's number."""

    needs_teacher = False

    def required_taps(self):
        return set()

    def forward(self, step):
        return step.output.x_hat.square().mean() / (1 + step.number)


class Reading(Numbered):
    """Reads from the device."""

    def forward(self, step):
        return step.output.x_hat.square().mean() * (2.0 if float(step.images.mean()) > 2 else 1.0)


@pytest.mark.parametrize(
    ("term", "reason"), [("numbered", "reads the number of the step"), ("reading", "_local_scalar_dense reads from")]
)
def test_a_term_that_cannot_be_recorded_is_reported_and_trains_all_the_same(
    recipe, tmp_path, graphs, caplog, term, reason
):
    import tests.small_pair

    class Terms:
        @distillkit.hookimpl
        def register_loss_terms(self, register):
            register("numbered", Numbered)
            register("reading", Reading)

    plugins = distillkit.load_plugins(small=tests.small_pair, own=Terms())
    r = recipe(losses={f"own.{term}": {}}, num_steps=6, schedule={"name": "core.constant"}, **MUON)
    both(r, tmp_path, plugins)
    assert graphs.replayed == 0
    (message,) = [record.getMessage() for record in caplog.records]
    assert reason in message
    assert message.startswith(f"steps with own.{term} are launched one by one")


def test_without_graphs_the_reason_is_noted(recipe, tmp_path, plugins):
    class Notes:
        @distillkit.hookimpl
        def run_started(self, run):
            notes.extend(run.notes)

    notes = []
    for choice in ("graph", "auto"):
        r = recipe(num_steps=1, schedule={"name": "core.constant"}, compile=choice)
        distillkit.train(r, tmp_path / choice, plugins=plugins, observers=[Notes()])
    assert [note for note in notes if "compile" in note] == [
        "compile graph: steps are launched one by one, for cpu has no graphs"
    ]


def test_a_recorded_graph_repeats_operators_on_the_same_memory():
    torch.manual_seed(0)
    layer, images = nn.Linear(3, 2), torch.ones(4, 3)
    optimizer = torch.optim.Adam(layer.parameters(), 0.1, fused=True)
    results = []

    def work():
        optimizer.zero_grad()
        loss = (layer(images) + torch.rand(4, 2)).square().mean()
        loss.backward()
        optimizer.step()
        results[:] = [loss.detach()]

    work()
    state, rng = [p.detach().clone() for p in layer.parameters()], torch.get_rng_state()
    graph = RecordedGraph()
    graph.capture(work)
    images.fill_(2.0)
    graph.replay()
    by_replay, loss = [p.detach().clone() for p in layer.parameters()], results[0].clone()
    assert all((a != b).all() for a, b in zip(state, by_replay, strict=True))
    torch.manual_seed(0)
    again = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(again.parameters(), 0.1, fused=True)
    layer, images = again, torch.ones(4, 3)
    work()
    torch.set_rng_state(rng)
    work()
    images.fill_(2.0)
    work()
    assert torch.equal(results[0], loss)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), by_replay, strict=True))
    with pytest.raises(CannotCaptureError, match="_local_scalar_dense"):
        graph.capture(lambda: float(images.sum()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_on_a_gpu(recipe, teacher_file, tmp_path, plugins):
    r = recipe(losses=FEDS, teacher=teacher_file, num_steps=24, **MUON, device="cuda", precision="fp32", log_every=1)
    both(r, tmp_path, plugins)
