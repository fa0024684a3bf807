"""`DISTILLKIT_TRACE=1` writes every hook call to stderr: who is called, with what, and how long it took."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import pluggy

VARIABLE = "DISTILLKIT_TRACE"


def trace(hook: str, text: str) -> None:
    """Write one line, if tracing is on."""
    if os.environ.get(VARIABLE, "0") not in ("", "0"):
        print(f"distillkit: hook {hook} {text}", file=sys.stderr, flush=True)


def trace_hooks(manager: pluggy.PluginManager) -> None:
    """Have a plugin manager trace its calls, if tracing is on now."""
    if os.environ.get(VARIABLE, "0") in ("", "0"):
        return
    starts: list[float] = []

    def before(hook: str, implementations: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]) -> None:
        starts.append(perf_counter())

    def after(
        outcome: pluggy.Result[Any],
        hook: str,
        implementations: Sequence[pluggy.HookImpl],
        arguments: Mapping[str, Any],
    ) -> None:
        milliseconds = (perf_counter() - starts.pop()) * 1000
        called = ", ".join(_name(implementation) for implementation in implementations) or "nobody"
        given = ", ".join(f"{key}={_brief(value)}" for key, value in arguments.items())
        failed = f", raised {type(outcome.exception).__name__}" if outcome.exception else ""
        trace(hook, f"({given}) -> {called}: {milliseconds:.1f} ms{failed}")

    manager.add_hookcall_monitoring(before, after)


def _name(implementation: pluggy.HookImpl) -> str:
    """Return a plugin's name; for an observer of one run, its class's."""
    name = implementation.plugin_name
    return type(implementation.plugin).__name__ if name.isdigit() else name


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(value) + "}"
    name = getattr(value, "name", None)  # of a run, a phase, a path
    return str(name) if isinstance(name, str) else repr(value)
