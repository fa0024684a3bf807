"""Find, check and load plugins; the registry from `plugin.name` to component."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import os
import re
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import pluggy

from ..errors import PluginError, RecipeError, did_you_mean
from . import hookspecs
from .components import Component, ComponentConfig, validate
from .kinds import KINDS, Kind
from .trace import trace, trace_hooks

ENTRY_POINT_GROUP = "distillkit"
DISTRIBUTION = "distillkit-lic"
_LOG = logging.getLogger("distillkit")

DISABLE = "DISTILLKIT_DISABLE_PLUGINS"  #: environment variable: names of installed plugins to leave out, with commas


@dataclass(frozen=True)
class PluginInfo:
    """Where a plugin came from: name, object, distribution and version (`None` for one passed in a script)."""

    name: str
    module: str
    distribution: str | None
    version: str | None


@dataclass
class Plugins:
    """The plugins of one load: the hook caller and every registered component. There is no global state.

    Attributes:
        manager: pluggy's manager, for calling observers.
        plugins: every plugin, by load order.
        components: name of the kind (see `kinds`) -> full name -> class.
        left_out: installed plugins that are not here -> why: they failed to load, or are disabled.
    """

    manager: pluggy.PluginManager
    plugins: list[PluginInfo] = field(default_factory=list)
    components: dict[str, dict[str, type[Component]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    left_out: dict[str, str] = field(default_factory=dict[str, str])

    def get(self, kind: str, name: str, where: str) -> type[Any]:
        """Return the component class of this name.

        Raises:
            RecipeError: there is none; names the closest one.
            PluginError: it belongs to a plugin that failed to load or is disabled.
        """
        known = self.components[kind]
        if name not in known:
            if reason := self.left_out.get(name.partition(".")[0]):
                raise PluginError(f"{where}: no {kind} '{name}' is registered; {reason}")
            hint = did_you_mean(name, known) or f" Known: {', '.join(sorted(known)) or 'none'}."
            raise RecipeError(f"{where}: no {kind} '{name}' is registered.{hint} `distillkit plugins` lists them all.")
        return known[name]

    @contextmanager
    def observing(self, observers: Iterable[object]) -> Generator[None]:
        """Register observers for as long as the context lasts, and close those that have a `close`.

        An error in a `close` is reported.

        Raises:
            PluginError: an observer implements an unknown hook, or one with parameters that it is not called with.
        """
        observers = list(observers)
        for observer in observers:
            _check_hooks(self.manager, observer, f"observer {type(observer).__name__}")
        try:
            for observer in observers:
                self.manager.register(observer)
            yield
        finally:
            for observer in observers:
                if self.manager.is_registered(observer):
                    self.manager.unregister(observer)
                try:
                    getattr(observer, "close", lambda: None)()
                except Exception as error:
                    report_observer(observer, "close", error)

    def configure_loss(self, label: str, options: Mapping[str, Any], where: str = "") -> tuple[type[Any], Any]:
        """Return class and `Config` of a recipe's loss, whose label is its name or has a `name`; see `configure`."""
        own = {key: value for key, value in options.items() if key not in ("name", "teacher")}
        return self.configure("loss", str(options.get("name", label)), own, where or f"recipe losses.{label}")

    def configure(self, kind: str, name: str, options: Mapping[str, Any], where: str) -> tuple[type[Any], Any]:
        """Return the component class of this name and its validated `Config`.

        Raises:
            RecipeError: no such component, or its options are not valid.
        """
        component = self.get(kind, name, where)
        return component, validate(component.Config, options, where)


def plugin_manager() -> pluggy.PluginManager:
    """Return a manager of distillkit's hooks without plugins, traced if tracing is on."""
    manager = pluggy.PluginManager("distillkit")
    manager.add_hookspecs(hookspecs)
    trace_hooks(manager)
    return manager


def report_observer(observer: object, hook: str, error: Exception) -> None:
    """Warn that a hook of an observer raised."""
    name = getattr(observer, "__name__", type(observer).__name__)
    place = traceback.extract_tb(error.__traceback__)[-1]
    _LOG.warning(
        "observer %s: %s raised %s: %s (%s, line %s). It is left out from here on, and the run continues; correct it.",
        *(name, hook, type(error).__name__, error, place.filename, place.lineno),
    )


def load_plugins(**extra: object) -> Plugins:
    """Load every installed plugin, and those passed as `name=module_or_object`.

    An installed plugin that fails to load is left out with a warning; whatever names one of its components fails with
    the reason. `DISTILLKIT_DISABLE_PLUGINS=a,b` leaves plugins out.

    Returns:
        A fresh set of plugins; nothing is shared between two calls.

    Raises:
        PluginError: a plugin that was passed implements an unknown hook, gives a hook parameter a default value, or
            registers a name twice. The message names the plugin.
    """
    loaded = load_installed(None)
    for name, plugin in extra.items():
        _add(loaded, name, plugin)
    return loaded


def load_installed(names: Iterable[str] | None) -> Plugins:
    """Load the installed plugins of these names, or all of them; one that fails is left out with a warning."""
    loaded = Plugins(plugin_manager())
    ours = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    # Of two plugins of one name the shipped one is loaded.
    entry_points = sorted(ours, key=lambda each: (each.name, each.dist is None or each.dist.name != DISTRIBUTION))
    disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",")} - {""}
    installed = {entry_point.name for entry_point in entry_points}
    for unknown in sorted(disabled - installed):
        _warn(f"{DISABLE}: no plugin '{unknown}' is installed.{did_you_mean(unknown, installed)}")
    for entry_point in entry_points:
        name = entry_point.name
        if names is not None and name not in names:
            continue
        if name in disabled:
            loaded.left_out[name] = f"plugin '{name}' is disabled by {DISABLE}; unset it."
            continue
        try:
            _load(loaded, entry_point)
        except PluginError as error:
            loaded.left_out.setdefault(name, str(error))
            _warn(f"{error} It is left out.")
    return loaded


@cache
def _warn(message: str) -> None:
    """Warn once a process."""
    _LOG.warning(message)


def _load(loaded: Plugins, entry_point: importlib.metadata.EntryPoint) -> None:
    distribution, version = (entry_point.dist.name, entry_point.dist.version) if entry_point.dist else (None, None)
    try:
        module = entry_point.load()
    except Exception as error:
        raise PluginError(
            f"plugin '{entry_point.name}' ({entry_point.value}, from {distribution}): importing it failed: "
            f"{type(error).__name__}: {error}. Correct it, or uninstall {distribution}."
        ) from error
    _add(loaded, entry_point.name, module, distribution, version)


def _add(
    loaded: Plugins, name: str, plugin: object, distribution: str | None = None, version: str | None = None
) -> None:
    origin = f"plugin '{name}'" + (f" (from {distribution})" if distribution else "")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise PluginError(f"{origin}: expected a name of lower-case letters, digits and underscores; rename it.")
    for other in loaded.plugins:
        if other.name == name:
            raise PluginError(
                f"{origin}: a plugin of that name is loaded already, from {other.distribution or other.module}. "
                "Rename one of the two entry points."
            )
    _check_hooks(loaded.manager, plugin, origin)
    try:
        loaded.manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"{origin}: {error}") from error
    module = plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__name__
    try:
        for kind in KINDS.values():
            _register(loaded, kind, name, origin)
    except PluginError:  # a plugin that failed half way leaves nothing behind
        loaded.manager.unregister(plugin)
        for components in loaded.components.values():
            for full in [full for full in components if full.partition(".")[0] == name]:
                del components[full]
        raise
    loaded.plugins.append(PluginInfo(name, module, distribution, version))


def _register(loaded: Plugins, kind: Kind, plugin: str, origin: str) -> None:
    for implementation in getattr(loaded.manager.hook, kind.hook).get_hookimpls():
        if implementation.plugin_name == plugin:
            before = set(loaded.components[kind.name])
            _call(implementation.function, _registrar(loaded, kind, plugin, origin), f"{origin}: {kind.hook}")
            new = sorted(loaded.components[kind.name].keys() - before)
            trace(kind.hook, f"of {plugin}: {', '.join(new) or 'nothing'}")


def _check_hooks(manager: pluggy.PluginManager, plugin: object, origin: str) -> None:
    known = [name for name in vars(hookspecs) if getattr(getattr(hookspecs, name), "distillkit_spec", None)]
    for attribute in dir(plugin):
        if manager.parse_hookimpl_opts(plugin, attribute) is None:
            continue
        if attribute not in known:
            hint = did_you_mean(attribute, known) or f" Known hooks: {', '.join(known)}."
            raise PluginError(f"{origin}: there is no hook '{attribute}'.{hint}")
        expected = list(inspect.signature(getattr(hookspecs, attribute)).parameters)
        for parameter in inspect.signature(getattr(plugin, attribute)).parameters.values():
            if parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
                raise PluginError(
                    f"{origin}: hook '{attribute}': parameter '{parameter.name}' has a default value or is "
                    "keyword-only, so it would never be passed. Make it a plain parameter."
                )
            if parameter.name not in expected:
                hint = did_you_mean(parameter.name, expected) or f" It is called with: {', '.join(expected)}."
                raise PluginError(f"{origin}: hook '{attribute}' has no parameter '{parameter.name}'.{hint}")


def _registrar(loaded: Plugins, of: Kind, plugin: str, origin: str) -> Callable[[str, type[Component]], None]:
    kind = of.name

    def register(name: str, component: object) -> None:  # a plugin may pass anything
        full = f"{plugin}.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise PluginError(
                f"{origin}: {kind} name {name!r}: expected lower-case letters, digits and underscores; rename it."
            )
        if full in loaded.components[kind]:
            raise PluginError(f"{origin}: {kind} '{full}' is registered twice; rename one.")
        base = of.base_class()
        if not (isinstance(component, type) and issubclass(component, base)):
            raise PluginError(
                f"{origin}: {kind} '{full}': expected a subclass of distillkit.{base.__name__}, got {component!r}; "
                "register the class."
            )
        if inspect.isabstract(component):
            missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
            raise PluginError(
                f"{origin}: {kind} '{full}': {component.__name__} does not implement {missing}; write them."
            )
        config = cast(object, component.Config)  # typed, but not by everybody
        if not (isinstance(config, type) and issubclass(config, ComponentConfig)):
            raise PluginError(
                f"{origin}: {kind} '{full}': its Config is not a distillkit.ComponentConfig; subclass that."
            )
        for taken in ("name", "teacher") if kind == "loss" else ("name",):
            if taken in config.model_fields:
                raise PluginError(
                    f"{origin}: {kind} '{full}': its Config has an option '{taken}', which in a recipe is the "
                    f"component's own {taken}. Rename the option."
                )
        loaded.components[kind][full] = component

    return register


def _call(function: Callable[..., Any], register: Callable[..., None], where: str) -> None:
    if inspect.isgeneratorfunction(function):
        raise PluginError(f"{where} yields, so its body would never run. Make it a plain function.")
    try:
        function(register)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"{where} failed: {type(error).__name__}: {error}") from error
