"""References: every source that a component names is known, and nothing is made up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import distillkit
from distillkit.report.citations import references

ROOT = Path(__file__).parents[2]


def test_every_arxiv_number_of_a_component_has_its_entry():
    found = references(distillkit.load_plugins())
    keys = [reference.key for reference in found]
    assert len(keys) == len(set(keys)) > 15
    assert not [key for key in keys if key.startswith("arxiv")]
    for reference in found[1:]:
        assert reference.field("title")
        assert reference.field("author")
        assert re.fullmatch(r"(19|20)\d\d", reference.field("year"))
    numbers = re.findall(r"eprint = \{(.*?)\}", (ROOT / "distillkit/report/bibliography.bib").read_text())
    assert len(numbers) == len(set(numbers))


def test_a_recipe_cites_what_it_uses(recipe, plugins):
    feds = recipe(losses={"feds.alignment": {}})
    used = {reference.key: reference.used_by for reference in references(plugins, [feds])}
    assert used["fu2025feds"] == ("feds.alignment", "feds.staged")
    assert used["romero2015fitnets"] == ("feds.alignment",)
    assert used["vyas2024soap"] == ("core.soap",)
    assert "park2019relational" not in used
    assert "wang2023evc" not in used
    heir = recipe(initial_weights="teacher", optimizer={"name": "adam"})
    used = {reference.key for reference in references(plugins, [heir])}
    assert "wang2023evc" in used
    assert not used & {"romero2015fitnets", "vyas2024soap", "jordan2024muon"}
    muon = recipe(optimizer={"name": "muon"})
    used = {reference.key: reference.used_by for reference in references(plugins, [muon])}
    assert used["jordan2024muon"] == used["liu2025muon"] == ("core.muon",)


class Unknown(distillkit.PhaseSchedule):
    """A schedule.

    Source: Nobody (2031), arXiv
    3101.01234; "Relational
    Knowledge Distillation"; a note of ours.
    Departure: not of arXiv 1503.02531.
    """

    bibtex = "@article{mine,\n  author = {A. Name and B. Name},\n  title = {On {Schedules}},\n  year = {2030}\n}"

    def phases(self, num_steps, terms):
        return [distillkit.Phase("all", num_steps)]


class Other:
    @distillkit.hookimpl
    def register_phase_schedules(self, register):
        register("unknown", Unknown)


def test_a_plugin_brings_its_own_and_what_is_unknown_is_not_made_up(recipe):
    import tests.small_pair

    plugins = distillkit.load_plugins(small=tests.small_pair, other=Other())
    found = references(plugins, [recipe(schedule={"name": "other.unknown"}, losses={})])
    of_it = {reference.key: reference for reference in found if "other.unknown" in reference.used_by}
    assert set(of_it) == {"mine", "arxiv3101.01234", "park2019relational"}
    assert of_it["mine"].field("title") == "On Schedules"
    assert of_it["arxiv3101.01234"].field("title") == ""
    assert "https://arxiv.org/abs/3101.01234" in of_it["arxiv3101.01234"].bibtex


def test_the_command(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from distillkit.cli.app import app

    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    everything = run(app, ["cite"])
    assert everything.exit_code == 0
    assert everything.stdout.startswith("% distillkit\n@software{distillkit,")
    assert everything.stdout.count("\n@") > 15
    pair = '[pair]\nname = "models.swin"\n[data]\ntrain = "x"\n'
    Path("mine.toml").write_text(f"num_steps = 1\n{pair}")
    one = run(app, ["cite", "mine.toml"]).stdout
    assert "zhu2022transformer" in one
    assert "fu2025feds" not in one
    Path("run").mkdir()
    Path("run/recipe.toml").write_text(f"num_steps = 1\n{pair}")
    assert run(app, ["cite", "run"]).stdout == one
    with pytest.raises(distillkit.DistillkitError, match="nothing there"):
        run(app, ["cite", "nowhere"], catch_exceptions=False)
