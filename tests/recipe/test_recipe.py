"""A recipe says what a run is, whole: it survives TOML, and what is wrong in it is said with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import distillkit
from distillkit.errors import CheckpointError, RecipeError
from distillkit.model.zoo import find
from distillkit.recipe.recipe import ComponentChoice, Recipe
from distillkit.recipe.settings import DataSettings
from distillkit.training.setup.resolve import resolve

SMALLEST = """
num_steps = 10
pair = { name = "models.cheng2020" }
data = { train = "photographs" }
"""

FULL = """
trains = "student"
teacher = "runs/teacher/model.safetensors"
lmbda = 0.0067
num_steps = 1000
precision = "bf16"
device = "cpu"
seed = 3
log_every = 10
checkpoint_every = 100

[pair]
name = "models.cheng2020"
size = "lite"

[losses."feds.alignment"]
taps = ["analysis.*"]

[losses."feds.channel_entropy"]
select = "top"
num_channels = 16

[schedule]
name = "feds.staged"
alignment_share = 0.3

[taps]
name = "models.by_resolution"
analysis = "g_a"

[data]
train = "photographs"
crop = 128
batch_size = 4
num_workers = 2
cache_mib = 100
bad_images = "skip"

[optimizer]
name = "soap"
learning_rate = 3e-3
aux_learning_rate = 1e-2
clip_norm = 0.5
rate_schedule = "cosine"
warmup_steps = 100
"""


@pytest.fixture(scope="module")
def loaded() -> distillkit.Plugins:
    return distillkit.load_plugins()


@pytest.fixture
def load(tmp_path):
    def load(text: str) -> Recipe:
        (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
        return Recipe.load(tmp_path / "recipe.toml")

    return load


def refused(load, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(text)
    return str(caught.value)


@pytest.mark.parametrize("text", [SMALLEST, FULL])
def test_round_trip(load, loaded, text):
    recipe = load(text)
    assert load(recipe.to_toml()) == recipe
    resolved = resolve(recipe, loaded)
    assert resolve(load(resolved.to_toml()), loaded) == resolved == resolve(resolved, loaded)


def test_every_key_of_a_full_recipe_arrives(load):
    recipe = load(FULL)
    written = tomllib.loads(recipe.to_toml())
    for key, value in tomllib.loads(FULL).items():
        if key in ("teacher", "data"):
            continue
        assert written[key] == value
    assert recipe.pair.options == {"size": "lite"}
    assert recipe.data.batch_size == 4


def test_resolve_fills_in_every_effective_value(load, loaded):
    written = tomllib.loads(resolve(load(SMALLEST), loaded).to_toml())
    assert written.keys() == Recipe.model_fields.keys() - {"teacher", "validation"}
    assert written["pair"] == {"name": "models.cheng2020", "size": "tiny"}
    assert written["schedule"]["name"] == "core.constant"
    assert written["taps"] == {
        "name": "models.by_resolution",
        "analysis": "g_a",
        "synthesis": "g_s",
        "hyper_analysis": "h_a",
        "hyper_synthesis": "h_s",
        "entropy_parameters": "entropy_parameters",
    }
    assert written["optimizer"] == {
        "name": "core.adam",
        "betas": [0.9, 0.999],
        "learning_rate": 1e-4,
        "aux_learning_rate": 1e-3,
        "clip_norm": 1.0,
        "rate_schedule": {"name": "core.constant"},
        "warmup_steps": 0,
    }
    assert written["lmbda"] == 0.013


def test_resolve_fills_in_options_of_losses_and_schedule(load, loaded):
    resolved = resolve(load(FULL), loaded)
    assert resolved.losses["feds.alignment"] == {"taps": ["analysis.*"], "positions": 1024, "resize": False}
    assert resolved.losses["feds.channel_entropy"]["keep"] == 0.95
    assert resolved.losses["feds.channel_entropy"]["num_channels"] == 16
    assert resolved.schedule.options["alignment_share"] == 0.3
    assert resolved.schedule.options["channel_share"] == 0.4


def test_relative_paths_start_from_the_recipes_folder(load, loaded, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    resolved = resolve(load(FULL), loaded)
    assert resolved.data.train == tmp_path / "photographs"
    assert resolved.teacher == tmp_path / "runs/teacher/model.safetensors"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "r.toml").write_text(SMALLEST.replace("photographs", "../photographs"))
    assert resolve(Recipe.load("deep/r.toml"), loaded).data.train == tmp_path / "photographs"


def test_a_model_that_ships_is_its_file(load):
    recipe = load('initial_weights = "zoo:lite-student"\nteacher = "zoo:lite-student"\n' + SMALLEST)
    assert recipe.teacher == recipe.initial_weights == find("zoo:lite-student")
    assert recipe.changed({"teachers": {"low": "zoo:lite-student"}}).teachers["low"] == find("zoo:lite-student")
    with pytest.raises(CheckpointError, match=r"zoo:lite-studet: no such model; .*Did you mean"):
        load('initial_weights = "zoo:lite-studet"\n' + SMALLEST)


def test_absolute_paths_stay(load, loaded):
    assert resolve(load(SMALLEST.replace("photographs", "/a/b")), loaded).data.train == Path("/a/b")


def test_python_and_toml_say_the_same(load, loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Recipe.create(**tomllib.loads(FULL))
    assert resolve(made, loaded) == resolve(load(FULL), loaded)
    assert made.pair == ComponentChoice(name="models.cheng2020", size="lite")


def test_missing_file(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere.toml: cannot be read: No such file"):
        Recipe.load(tmp_path / "nowhere.toml")


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(RecipeError, match="expected a file, got a folder or device; check the path"):
        Recipe.load(tmp_path)


@pytest.mark.parametrize("text", ["num_steps = ", "num_steps = 1\nnum_steps = 2", "[data", "\0"])
def test_not_toml(load, text):
    assert "recipe.toml: not valid TOML" in refused(load, text)


def test_not_text(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe\x00picture")
    with pytest.raises(RecipeError, match="not valid TOML"):
        Recipe.load(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("num_stepz = 5", "recipe recipe.toml: num_stepz: unknown key. Did you mean 'num_steps'?"),
        ("zzz = 1", "zzz: unknown key. Known keys: accumulate, checkpoint_every"),
        (
            "lmbda = 'high'",
            "lmbda: expected a number above 0, or {low = ..., high = ...}, got 'high'",
        ),
        ("lmbda = 0", "lmbda: expected a number above 0, or {low = ..., high = ...}, got 0"),
        ("lmbda = nan", "lmbda: expected"),
        ("lmbda = inf", "lmbda: expected"),
        ("seed = -1", "seed: expected greater than or equal to 0, got -1"),
        ("seed = 36893488147419103232", "seed: expected less than"),
        ("precision = 'int8'", "precision: expected 'auto', 'fp32', 'bf16' or 'fp16', got 'int8'"),
        ("[optimizer]\nlearning_rate = inf", "optimizer.learning_rate: expected"),
        ("losses = ['feds.alignment']", "losses: expected"),
        ("schedule = 'feds.staged'", "schedule: expected"),
        ("[schedule]\nalignment_share = 0.5", "schedule.name: missing; add it"),
    ],
)
def test_bad_keys_and_values(load, added, expected):
    assert expected in refused(load, SMALLEST + added)


def test_missing_keys_are_all_named(load):
    message = refused(load, "seed = 1")
    for key in ("num_steps", "pair", "data"):
        assert f"recipe recipe.toml: {key}: missing" in message
    assert "recipe recipe.toml: data.train: missing" in refused(
        load, SMALLEST.replace('train = "photographs"', "crop = 64")
    )


def test_several_mistakes_at_once(load):
    message = refused(load, SMALLEST + "lmbdaa = 1\nseed = 'x'")
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SMALLEST.replace("cheng2020", "cheng202"), "recipe pair: no pair 'models.cheng202' is registered. Did you me"),
        (SMALLEST.replace('20"', '20", sise = "tiny"'), "recipe pair: sise: unknown key. Did you mean 'size'?"),
        (SMALLEST.replace('20"', '20", size = "huge"'), "recipe pair: size: expected 'tiny', 'lite' or 'paper'"),
        (FULL.replace('s."feds.al', 's."feds.a'), "recipe losses.feds.aignment: no loss 'feds.aignment'"),
        (FULL.replace("select =", "selekt ="), "recipe losses.feds.channel_entropy: selekt: unknown key. Did you mean"),
        (FULL.replace("= 16", "= -1"), "recipe losses.feds.channel_entropy: num_channels: expected greater"),
        (FULL.replace("feds.staged", "feds.stage"), "recipe schedule: no schedule 'feds.stage'"),
        (FULL.replace("alignment_share", "align_share"), "recipe schedule: align_share: unknown key. Did you mean"),
        (FULL.replace("by_resolution", "by_resolutions"), "recipe taps: no taps 'models.by_resolutions'"),
        (FULL.replace("analysis =", "analisys ="), "recipe taps: analisys: unknown key. Did you mean 'analysis'?"),
    ],
)
def test_bad_components_and_options(load, loaded, text, expected):
    with pytest.raises(RecipeError) as caught:
        resolve(load(text), loaded)
    assert expected in str(caught.value)


def test_loss_without_its_quotes_is_explained(load, loaded):
    """TOML reads [losses.feds.alignment] as a table `alignment` within a loss `feds`."""
    with pytest.raises(RecipeError, match=r"""\[losses\."feds\.alignment"\]"""):
        resolve(load(FULL.replace('"feds.alignment"', "feds.alignment")), loaded)


def test_losses_without_a_teacher(load, loaded):
    with pytest.raises(RecipeError, match=r"^recipe teacher: missing, but there are losses.*model.safetensors"):
        resolve(load(SMALLEST + '[losses."feds.alignment"]'), loaded)


def test_teacher_of_its_own_is_enough(loaded):
    class Pretrained(distillkit.CodecPair):
        pretrained_teacher = True

        def build_teacher(self): ...

        def build_student(self): ...

    class Plugin:
        @distillkit.hookimpl
        def register_pairs(self, register):
            register("pretrained", Pretrained)

    plugins = distillkit.load_plugins(own=Plugin())
    values = {"num_steps": 1, "data": {"train": "x"}, "losses": {"feds.alignment": {}}}
    assert resolve(Recipe.create(pair={"name": "own.pretrained"}, **values), plugins).teacher is None


@pytest.mark.parametrize("added", ['[losses."feds.alignment"]', "teacher = 'model.safetensors'"])
def test_teacher_is_trained_alone(load, loaded, added):
    with pytest.raises(RecipeError, match="'teacher' is trained without another teacher or losses that need one"):
        resolve(load(SMALLEST.replace("num_steps", "trains = 'teacher'\nnum_steps") + added), loaded)


def test_recipes_cannot_be_changed_by_accident(load):
    recipe = load(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1


def test_a_recipe_of_before_that_keeps_features_on_disk_says_what_to_do(load):
    message = refused(load, SMALLEST + '\n[teacher_cache]\nfolder = "features"\n')
    assert message.startswith(
        "recipe recipe.toml: teacher_cache: the teacher's features are no longer kept on disk; remove"
    )


@pytest.mark.parametrize(("key", "most"), [("num_workers", 1024), ("batch_size", 65536)])
def test_numbers_that_no_machine_has_room_for_are_refused(key, most):
    data = DataSettings.model_validate({"train": "x", key: most})
    assert getattr(data, key) == most
    with pytest.raises(ValueError, match=f"less than or equal to {most}"):
        DataSettings.model_validate({"train": "x", key: most + 1})
