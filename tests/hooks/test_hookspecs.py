"""`hookspecs.py` is the reference, so it is complete: every hook says when it is called and with what."""

from __future__ import annotations

import inspect
import re

import pytest

import distillkit
from distillkit.hooks import hookspecs
from distillkit.hooks.kinds import KINDS
from distillkit.training.observers import MetricsFile

HOOKS = {
    name: function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and function.__module__ == hookspecs.__name__
}
REGISTERING = [name for name in HOOKS if name.startswith("register_")]
OBSERVING = [name for name in HOOKS if not name.startswith("register_")]


@pytest.fixture(scope="module")
def manager():
    return distillkit.load_plugins().manager


def test_every_function_is_a_hook():
    assert HOOKS
    assert all(hasattr(function, "distillkit_spec") for function in HOOKS.values())


def test_hooks_stand_in_the_order_of_a_run():
    assert list(HOOKS) == REGISTERING + OBSERVING
    assert [OBSERVING[0], OBSERVING[-1]] == ["run_started", "run_finished"]


@pytest.mark.parametrize("hook", HOOKS)
def test_docstring(hook):
    text = inspect.getdoc(HOOKS[hook])
    assert text
    summary, _, arguments = text.partition("Args:")
    assert re.search(r"\bCalled (once|every)", summary), "say when it is called"
    described = re.findall(r"^ {4}(\w+): \S", arguments, re.MULTILINE)
    assert described == list(inspect.signature(HOOKS[hook]).parameters)
    assert all(
        parameter.annotation is not parameter.empty for parameter in inspect.signature(HOOKS[hook]).parameters.values()
    )


def test_every_kind_of_component_has_its_hook():
    assert sorted(kind.hook for kind in KINDS.values()) == sorted(REGISTERING)


@pytest.mark.parametrize("hook", REGISTERING)
def test_every_registering_hook_is_used_by_a_shipped_plugin(manager, hook):
    assert getattr(manager.hook, hook).get_hookimpls()


def test_observers_that_ship_pass_the_check_for_plugins():
    """Together they use every observing hook but one, which pluggy alone would let them misspell."""
    used = set()
    for observer in (MetricsFile(), distillkit.ProgressDisplay()):
        loaded = distillkit.load_plugins(observer=observer)
        used |= {
            hook
            for hook in OBSERVING
            for i in getattr(loaded.manager.hook, hook).get_hookimpls()
            if i.plugin is observer
        }
    assert used == set(OBSERVING) - {"checkpoint_saved"}
