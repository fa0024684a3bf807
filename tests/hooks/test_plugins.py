"""What a plugin can get wrong is said at load, by name; what it gets right comes in by the front door."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

import distillkit
from distillkit.errors import PluginError, RecipeError
from distillkit.hooks import loader


class Gram(distillkit.LossTerm):
    """Nothing in particular."""

    def required_taps(self):
        return {"latent"}

    def forward(self, step):
        return step.taps["latent"].student.mean()


class Unfinished(distillkit.LossTerm):
    """Lacks `forward`."""

    def required_taps(self):
        return set()


class BadConfig(Gram):
    Config = dict


class NamedOption(distillkit.PhaseSchedule):
    """Has an option that a recipe cannot tell from the component's own name."""

    class Config(distillkit.ComponentConfig):
        name: str = "x"

    def phases(self, num_steps, terms):
        return []


def plugin(*functions, **attributes) -> types.ModuleType:
    module = types.ModuleType("outside")
    for function in functions:
        setattr(module, function.__name__, distillkit.hookimpl(function))
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def registering(hook: str, *calls) -> types.ModuleType:
    def implementation(register):
        for call in calls:
            register(*call)

    implementation.__name__ = hook
    return plugin(implementation)


def failure(module: object, name: str = "outside") -> str:
    with pytest.raises(PluginError) as caught:
        distillkit.load_plugins(**{name: module})
    message = str(caught.value)
    assert message.startswith(f"plugin '{name}'")
    return message


def test_unknown_hook_with_suggestion():
    def register_loss_term(register): ...

    message = failure(plugin(register_loss_term))
    assert "no hook 'register_loss_term'" in message
    assert "Did you mean 'register_loss_terms'?" in message


def test_unknown_hook_without_a_close_name_lists_all():
    def xyzzy(): ...

    message = failure(plugin(xyzzy))
    assert all(hook in message for hook in ("register_pairs", "run_started", "run_finished"))


def test_parameter_with_a_default():
    def register_pairs(register=None): ...

    assert "'register_pairs': parameter 'register' has a default value" in failure(plugin(register_pairs))


def test_keyword_only_parameter():
    def run_started(*, run): ...

    assert re.search("'run_started': parameter 'run' .*keyword-only", failure(plugin(run_started)))


@pytest.mark.parametrize(("parameter", "hint"), [("metric", "Did you mean 'metrics'?"), ("zzz", "run, metrics")])
def test_unknown_parameter(parameter, hint):
    namespace: dict = {}
    exec(f"def metrics_logged(run, {parameter}): ...", namespace)
    message = failure(plugin(namespace["metrics_logged"]))
    assert f"'metrics_logged' has no parameter '{parameter}'" in message
    assert hint in message


def test_variable_arguments_are_refused():
    def run_started(*everything): ...

    assert "no parameter 'everything'" in failure(plugin(run_started))


def test_class_in_place_of_an_instance_is_refused():
    class Observer:
        @distillkit.hookimpl
        def run_started(self, run): ...

    assert "no parameter 'self'" in failure(Observer)


def test_fewer_parameters_in_another_order_are_fine():
    def phase_started(step, phase): ...

    def run_started(): ...

    distillkit.load_plugins(outside=plugin(phase_started, run_started))


def test_component_name_registered_twice():
    message = failure(registering("register_loss_terms", ("gram", Gram), ("gram", Gram)))
    assert "loss 'outside.gram' is registered twice" in message


def test_one_name_for_two_kinds_is_fine():
    def register_loss_terms(register):
        register("same", Gram)

    class Schedule(distillkit.PhaseSchedule):
        def phases(self, num_steps, terms):
            return []

    def register_phase_schedules(register):
        register("same", Schedule)

    loaded = distillkit.load_plugins(outside=plugin(register_loss_terms, register_phase_schedules))
    assert loaded.components["loss"]["outside.same"] is Gram
    assert loaded.components["schedule"]["outside.same"] is Schedule


@pytest.mark.parametrize("name", ["Gram", "1gram", "gram-2", "a.b", "", "gram\n"])
def test_bad_component_name(name):
    assert f"loss name {name!r}" in failure(registering("register_loss_terms", (name, Gram)))


@pytest.mark.parametrize("name", ["Outside", "out_side-2", "2nd", "a.b"])
def test_bad_plugin_name(name):
    assert "lower-case" in failure(plugin(), name)


def test_two_plugins_of_one_name():
    message = failure(plugin(), "feds")
    assert "already" in message
    assert "distillkit-lic" in message


def test_wrong_base_class():
    message = failure(registering("register_loss_terms", ("gram", distillkit.PhaseSchedule)))
    assert "expected a subclass of distillkit.LossTerm" in message
    assert "subclass of distillkit.CodecPair" in failure(registering("register_pairs", ("p", "not a class")))


def test_abstract_class_names_what_is_missing():
    message = failure(registering("register_loss_terms", ("gram", Unfinished)))
    assert "outside.gram" in message
    assert "Unfinished does not implement forward" in message


def test_config_of_another_class():
    assert "its Config" in failure(registering("register_loss_terms", ("gram", BadConfig)))


def test_option_called_name():
    message = failure(registering("register_phase_schedules", ("odd", NamedOption)))
    assert "'name'" in message


def test_error_inside_a_register_hook():
    def register_pairs(register):
        raise KeyError("oops")

    message = failure(plugin(register_pairs))
    assert "register_pairs failed: KeyError" in message
    assert "oops" in message


def test_wrong_number_of_arguments_to_register():
    assert "register_loss_terms failed: TypeError" in failure(registering("register_loss_terms", (Gram,)))


def test_register_hook_that_yields_is_refused():
    """Its body would never run, and its components would be missing without a word."""

    def register_loss_terms(register):
        yield register("gram", Gram)

    assert "register_loss_terms" in failure(plugin(register_loss_terms))


def test_two_loads_share_nothing():
    first = distillkit.load_plugins(outside=registering("register_loss_terms", ("gram", Gram)))
    second = distillkit.load_plugins()
    assert "outside.gram" in first.components["loss"]
    assert "outside.gram" not in second.components["loss"]
    assert first.manager is not second.manager
    assert not {id(kind) for kind in first.components.values()} & {id(kind) for kind in second.components.values()}
    second.components["loss"].clear()
    assert "feds.alignment" in first.components["loss"]
    assert "feds.alignment" in distillkit.load_plugins().components["loss"]


def test_the_same_module_may_be_loaded_twice():
    module = registering("register_loss_terms", ("gram", Gram))
    assert all("a.gram" in distillkit.load_plugins(a=module).components["loss"] for _ in range(2))


def test_unknown_component_is_a_recipe_error():
    with pytest.raises(RecipeError, match=r"here: no loss 'feds.alignement'.* Did you mean 'feds.alignment'\?"):
        distillkit.load_plugins().get("loss", "feds.alignement", "here")


def install(folder: Path, package: str, source: str, entry_points: str, distribution: str = "outside-dist") -> None:
    """Lay a package and its metadata into `folder`, as pip would."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(source)
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[distillkit]\n{entry_points}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the import path; what was imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


GRAM = '''
import distillkit

class Gram(distillkit.LossTerm):
    """Mean squared difference of channel Gram matrices (unitless)."""
    class Config(distillkit.LossConfig):
        tap: str = "latent"
    def required_taps(self):
        return {self.config.tap}
    def forward(self, step):
        student, teacher = (torch.einsum("bchw,bdhw->bcd", f, f) for f in step.taps[self.config.tap])
        return (student - teacher).square().mean()

@distillkit.hookimpl
def register_loss_terms(register):
    register("gram", Gram)
'''


def test_outside_plugin_through_its_entry_point(site):
    install(site, "outside_gram", GRAM, "gramlab = outside_gram")
    loaded = distillkit.load_plugins()
    info = next(p for p in loaded.plugins if p.name == "gramlab")
    assert (info.module, info.distribution) == ("outside_gram", "outside-dist")
    component, config = loaded.configure("loss", "gramlab.gram", {"tap": "analysis.1/4"}, "here")
    assert component.__module__ == "outside_gram"
    assert config.tap == "analysis.1/4"
    assert {"core.constant", "feds.staged"} <= loaded.components["schedule"].keys()


@pytest.fixture
def broken(site, caplog):
    """Return the reason why an installed plugin is left out; the others are loaded, and a warning says so once."""

    def reason(source: str, entry_points: str = "broken = outside_broken") -> str:
        install(site, "outside_broken", source, entry_points)
        loader._warn.cache_clear()
        loaded = distillkit.load_plugins()
        distillkit.load_plugins()
        (name, reason), (record,) = *loaded.left_out.items(), caplog.records
        assert name == entry_points.partition(" ")[0]
        assert record.getMessage() == f"{reason} It is left out."
        assert "outside-dist" in reason
        assert "feds.alignment" in loaded.components["loss"]
        assert not [full for kind in loaded.components.values() for full in kind if full.startswith("broken.")]
        if name == "broken":
            with pytest.raises(PluginError, match=r"recipe pair: no pair 'broken.x' is registered; plugin 'brok"):
                loaded.get("pair", "broken.x", "recipe pair")
        return reason

    return reason


def test_a_plugin_that_fails_half_way_leaves_nothing_behind(broken):
    assert "no such luck" in broken(GRAM + "\n    raise RuntimeError('no such luck')\n")


def test_plugins_can_be_disabled(monkeypatch, caplog):
    loader._warn.cache_clear()
    monkeypatch.setenv("DISTILLKIT_DISABLE_PLUGINS", "kd, fed")
    loaded = distillkit.load_plugins()
    assert [plugin.name for plugin in loaded.plugins] == ["core", "feds", "models"]
    assert "no plugin 'fed' is installed. Did you mean 'feds'?" in caplog.text
    with pytest.raises(PluginError, match="; plugin 'kd' is disabled by DISTILLKIT_DISABLE_PLUGINS; unset it"):
        loaded.get("loss", "kd.latent", "here")


def test_a_model_needs_the_plugin_of_its_own_pair_alone(monkeypatch, caplog):
    monkeypatch.setenv("DISTILLKIT_DISABLE_PLUGINS", "core,feds,kd")
    assert distillkit.load_model("zoo:lite-student").part == "student"
    assert not caplog.records


def test_installed_plugin_that_raises_on_import(broken):
    message = broken("raise RuntimeError('no such luck')")
    assert message.startswith("plugin 'broken' (outside_broken")
    assert "RuntimeError: no such luck" in message
    assert "uninstall outside-dist" in message


def test_installed_plugin_with_a_syntax_error(broken):
    assert "SyntaxError" in broken("def f(:")


def test_entry_point_that_leads_nowhere(broken):
    assert "No module named" in broken("", "broken = outside_elsewhere")


def test_entry_point_whose_attribute_is_missing(broken):
    assert "AttributeError" in broken("", "broken = outside_broken:plugin")


def test_installed_plugin_that_takes_a_shipped_name(broken):
    message = broken(GRAM, "feds = outside_broken")
    assert "plugin 'feds'" in message
    assert "already" in message
    assert "distillkit-lic" in message


def test_installed_plugin_with_a_misspelt_hook(broken):
    message = broken(GRAM.replace("def register_loss_terms", "def register_losses"))
    assert "plugin 'broken'" in message
    assert "'register_losses'" in message
