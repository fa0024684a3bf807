"""Loss terms by label, and those without a teacher."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import distillkit
from distillkit.errors import PluginError, RecipeError
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve

from .test_training import FEDS, same, weights

NUMBERS = []


class Loudness(distillkit.LossTerm):
    """The mean square of the reconstruction: a regulariser."""

    needs_teacher = False

    class Config(distillkit.LossConfig):
        """Options."""

        taps: tuple[str, ...] = ()

    def required_taps(self):
        return set(self.config.taps)

    def forward(self, step):
        NUMBERS.append(step.number)
        return step.output.x_hat.square().mean()


@distillkit.hookimpl
def register_loss_terms(register):
    register("loudness", Loudness)


@pytest.fixture
def plugins():
    import tests.small_pair

    own = SimpleNamespace(register_loss_terms=register_loss_terms)
    return distillkit.load_plugins(small=tests.small_pair, own=own)


QUIET = {"own.loudness": {}}


def test_a_regulariser_serves_a_teacher_and_a_control(recipe, tmp_path, plugins):
    NUMBERS.clear()
    for trains in ("teacher", "student"):
        plain, quiet = (
            distillkit.train(
                recipe(trains=trains, losses=losses, schedule=schedule, num_steps=4, log_every=1),
                tmp_path / f"{trains}-{len(losses)}",
                plugins=plugins,
            )
            for losses, schedule in (({}, {"name": "core.constant"}), (QUIET, loud(1000.0)))
        )
        assert not same(weights(plain), weights(quiet))
        lines = [json.loads(line) for line in (quiet.parent / "metrics.jsonl").read_text().splitlines()]
        assert lines[-1]["loss/own.loudness"] < lines[0]["loss/own.loudness"]
    assert NUMBERS == [0, 1, 2, 3] * 2


def loud(weight):
    return {"name": "core.constant", "weights": {"own.loudness": weight}}


@pytest.mark.slow
def test_the_control_of_distil_keeps_its_regularisers(recipe, teacher_file, photographs, tmp_path, plugins):
    student = recipe(losses={"kd.latent": {}, **QUIET}, schedule={"name": "core.constant"}, num_steps=2)
    distillkit.distil_recipes(teacher_file, student, tmp_path, sorted(photographs.iterdir())[:1], plugins=plugins)
    control = distillkit.Recipe.load(tmp_path / "control" / "recipe.toml")
    assert list(control.losses) == ["own.loudness"]
    assert control.teacher is None


PRIM = {
    "constant": {"name": "core.constant", "weights": {"kd.latent": 0.6, "own.loudness": 2.0}, "rd_weight": 0.4},
    "phases": {
        "name": "core.phases",
        "phases": [
            {"name": "latents", "share": 0.5, "weights": {"kd.latent": 1.0, "own.loudness": 2.0}, "rd_weight": 0.0},
            {"name": "all", "share": 0.5, "balance": 0.1, "weights": {"kd.latent": {"start": 1.0, "stop": 0.0}}},
        ],
    },
}


@pytest.mark.parametrize("kind", PRIM)
def test_a_control_keeps_its_regulariser_under_the_schedule_of_the_student(recipe, tmp_path, plugins, kind):
    """The weights of losses that it has not are left out, rate and distortion take their place, and a note says so."""
    r = resolve(recipe(losses=QUIET, schedule=PRIM[kind], num_steps=4), plugins)
    setup = prepare(r, plugins)
    assert setup.notes[0] == "no loss has a teacher: the schedule's weights of kd.latent are left out"
    assert [phase.rd_weight for phase in setup.timeline.phases] == [1.0] * len(setup.timeline.phases)
    assert setup.timeline.phases[0].weights == {"own.loudness": 2.0}
    assert all(phase.weights == {} and phase.balance is None for phase in setup.timeline.phases[1:])
    distillkit.train(r, tmp_path / "run", plugins=plugins)


def test_a_misspelt_weight_is_an_error_in_a_control_too(recipe, plugins):
    schedule = {"name": "core.constant", "weights": {"own.loudnes": 2.0}}
    with pytest.raises(RecipeError, match=r"weight to 'own.loudnes', which is not .* Did you mean 'own.loudness'"):
        prepare(resolve(recipe(losses=QUIET, schedule=schedule), plugins), plugins)


def test_what_trains_without_a_teacher_by_its_own_weights_stays_so(recipe, plugins):
    schedule = {"name": "core.constant", "weights": {"own.loudness": 2.0}, "rd_weight": 0.0}
    setup = prepare(resolve(recipe(losses=QUIET, schedule=schedule), plugins), plugins)
    assert (setup.timeline.phases[0].rd_weight, setup.timeline.notes) == (0.0, [])


def test_one_loss_twice_by_label(recipe, teacher_file, tmp_path, plugins):
    losses = {
        "coarse": {"name": "feds.alignment", "taps": ["latent"]},
        "fine": {"name": "feds.alignment", "taps": ["synthesis.1/2"]},
    }
    schedule = {"name": "core.constant", "weights": {"fine": 0.25}}
    r = recipe(losses=losses, teacher=teacher_file, schedule=schedule, num_steps=2, log_every=1)
    distillkit.train(r, tmp_path / "run", plugins=plugins)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["loss/coarse"] != line["loss/fine"]
    assert (line["weight/coarse"], line["weight/fine"]) == (1.0, 0.25)
    stored = distillkit.Recipe.load(tmp_path / "run" / "recipe.toml")
    assert stored.losses["fine"]["name"] == "feds.alignment"
    keys = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["task"]
    assert any(key.startswith("terms.fine.") for key in keys)
    assert distillkit.train(r, tmp_path / "run", plugins=plugins).exists()  # the same recipe


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"fine": {"name": "kd.hinnt"}}, "recipe losses.fine: no loss 'kd.hinnt' is registered"),
        ({"fine": {"name": "kd.hint", "tip": 1}}, "recipe losses.fine: tip: unknown key"),
        ({"../x": {"name": "kd.hint"}}, "label '../x': expected letters, digits"),
        ({"fine": {"taps": []}}, "recipe losses.fine: expected a loss's full name, or a label with `name`"),
    ],
)
def test_bad_labels(recipe, tmp_path, plugins, losses, message):
    with pytest.raises(RecipeError, match=message):
        distillkit.train(recipe(losses=losses), tmp_path / "run", plugins=plugins)


def test_a_regulariser_that_asks_for_taps_is_refused(recipe, tmp_path, plugins):
    r = recipe(losses={"own.loudness": {"taps": ["latent"]}}, schedule={"name": "core.constant"})
    with pytest.raises(RecipeError, match="says needs_teacher = False, but asks for taps"):
        distillkit.train(r, tmp_path / "run", plugins=plugins)


def test_a_loss_that_needs_a_teacher_has_none(recipe, tmp_path, plugins):
    with pytest.raises(RecipeError, match="'teacher' is trained without another teacher or losses that need one"):
        distillkit.train(recipe(trains="teacher", losses=FEDS), tmp_path / "run", plugins=plugins)


def test_an_option_may_not_be_called_name():
    class Named(Loudness):
        class Config(distillkit.LossConfig):
            """Options."""

            name: str = "a"

    @distillkit.hookimpl
    def register(register):
        register("named", Named)

    with pytest.raises(PluginError, match="its Config has an option 'name'"):
        distillkit.load_plugins(own=SimpleNamespace(register_loss_terms=register))
