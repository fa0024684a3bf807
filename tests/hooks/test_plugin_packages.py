"""Plugins as packages: really installed by pip into a virtual environment, beside a real wheel of distillkit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from distillkit.cli.app import app
from distillkit.errors import PluginError
from distillkit.testing.scaffold import new_plugin
from tests.environment import Environment

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # pip and real processes: a minute where nothing else runs
GRAM = ROOT / "examples" / "distillkit-gram"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def source(tmp_path) -> Path:
    """The example's own folder is left as it is: pip builds where the source lies."""
    return Path(shutil.copytree(GRAM, tmp_path / "gram", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")))


def listed(environment: Environment) -> dict:
    return json.loads(environment.run("-m", "distillkit", "plugins", "--json"))


def test_nothing_is_installed_elsewhere(environment, tmp_path):
    where = environment.call(["bash", "-c", "command -v pip python distillkit"], tmp_path).split()
    assert where == [str(environment.python.parent / name) for name in ("pip", "python", "distillkit")]
    assert environment.call(["pip", "--version"], tmp_path)


def test_the_wheel_is_what_runs(environment):
    file = environment.run("-c", "import distillkit; print(distillkit.__file__)").strip()
    assert Path(file).is_relative_to(environment.site)
    assert {plugin["name"] for plugin in listed(environment)["plugins"]} >= {"core", "feds", "kd", "models"}


def test_a_new_plugin_passes_its_own_tests_unedited(environment, tmp_path):
    folder = tmp_path / "distillkit-my-loss"
    environment.run("-m", "distillkit", "plugins", "new", "my_loss", cwd=tmp_path)
    environment.install(folder)
    assert "3 passed" in environment.run("-m", "pytest", "-q", "-W", "error", cwd=folder)
    shutil.rmtree(folder / "build")
    row = next(row for row in listed(environment)["components"] if row["name"] == "my_loss.features")
    assert [option["text"] for option in row["options"]] == ['tap = "latent"']


def test_the_example_is_installed_discovered_and_trains(environment, source):
    environment.install(source)
    content = listed(environment)
    (plugin,) = (plugin for plugin in content["plugins"] if plugin["name"] == "gram")
    assert plugin == {
        "name": "gram",
        "module": "distillkit_gram",
        "distribution": "distillkit-gram",
        "version": "0.1.0",
    }
    assert "gram.alignment" in {row["name"] for row in content["components"]}
    assert "4 passed" in environment.run("-m", "pytest", "-q", "-W", "error", cwd=source)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "register_loss_terms",
            "register_loss_term",
            "Did you mean 'register_loss_terms'?",
        ),
        ('gram = "', 'feds = "', "plugin of that name is loaded already"),
        ("import distillkit\n", "import distilkit\n", "importing it failed: ModuleNotFoundError"),
    ],
    ids=["misspelt hook", "duplicate name", "broken import"],
)
def test_what_can_go_wrong_is_said_by_name(environment, source, old, new, message):
    for path in (source / "distillkit_gram.py", source / "pyproject.toml"):
        path.write_text(path.read_text().replace(old, new))
    environment.install(source)
    try:
        reasons = json.loads(environment.run("-m", "distillkit", "plugins", "--json"))["left_out"]
        (reason,) = reasons.values()
        assert reason.startswith("plugin '")
        assert message in reason
        assert "distillkit-gram" in reason
        assert f"left out: {reason}" in environment.run("-m", "distillkit", "plugins")
        findings = environment.run("-c", "from distillkit.doctor import diagnose; print(diagnose())")
        assert "topic='plugins', state='problem'" in findings
    finally:
        environment.run("-m", "pip", "uninstall", "--yes", "--quiet", "distillkit-gram")


def test_other_peoples_tests_pay_nothing(environment, tmp_path):
    """The fixtures are in every pytest of the environment; they must not import torch there, nor warn."""
    (tmp_path / "test_other.py").write_text(
        "import sys\ndef test_light():\n    assert not {'torch', 'numpy', 'PIL', 'pydantic'} & sys.modules.keys()\n"
    )
    told = environment.run("-m", "pytest", "-q", "-W", "error", "--fixtures", cwd=tmp_path)
    assert "distillkit_teacher" in told
    assert "1 passed" in environment.run("-m", "pytest", "-q", "-W", "error", cwd=tmp_path)


@pytest.mark.parametrize(("name", "hint"), [("My-Loss", "Try 'my_loss'"), ("2nd", "Try 'nd'"), ("", "expected a name")])
def test_bad_names(name, hint, tmp_path):
    with pytest.raises(PluginError, match=hint):
        new_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path):
    new_plugin("mine", tmp_path / "new")
    with pytest.raises(PluginError, match="expected a new or empty folder"):
        new_plugin("mine", tmp_path / "new")


def test_the_group_is_a_command():
    assert "plugins" in {group.name for group in app.registered_groups}
