"""Changes to a recipe, key by key: `optimizer.learning_rate=1e-3` on the command line, or a mapping in Python."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError


def parse_changes(texts: list[str], option: str = "--set") -> dict[str, Any]:
    """Return changes from `KEY=VALUE` texts, by key.

    A value is TOML (`1e-3`, `true`, `[1, 2]`, `{name = "feds.staged"}`); what is no TOML is a text (`photos/train`).

    Args:
        texts: what was given.
        option: by which, for messages.

    Raises:
        RecipeError: a text has no `=`.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"{option} {text}: expected KEY=VALUE, as in `optimizer.learning_rate=1e-3`; correct it.")
        try:
            parsed = tomllib.loads(f"value = {value}")
        except tomllib.TOMLDecodeError:
            parsed = {}
        changes[key.strip()] = parsed["value"] if len(parsed) == 1 else value.strip()
    return changes


def apply_changes(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a recipe with some changed.

    Args:
        values: of the recipe, as in its file.
        changes: by key. A dot steps into a table, which is made if it is not there; names with dots need no quotes
            where the table has them (`losses.feds.alignment.label`).

    Raises:
        RecipeError: a key is no TOML key, or steps into what is no table.
    """
    changed = dict(values)
    for key, value in changes.items():
        changed = _changed(changed, _parts(key), value, key)
    return changed


def _changed(table: Mapping[str, Any], parts: list[str], value: Any, key: str) -> dict[str, Any]:
    """Return a table with the entry at `parts` replaced; nothing is changed in place."""
    count = next((count for count in range(len(parts), 1, -1) if ".".join(parts[:count]) in table), 1)
    name, rest = ".".join(parts[:count]), parts[count:]
    if not rest:
        return {**table, name: value}
    inner = table.get(name, {})
    if not isinstance(inner, Mapping):
        raise RecipeError(
            f"--set {key}: expected a table at {name}, got {json.dumps(inner, default=str)}; set it whole: "
            f"--set '{key.rpartition('.')[0]}={{name = \"...\", {rest[-1]} = ...}}'."
        )
    return {**table, name: _changed(inner, rest, value, key)}


def _parts(key: str) -> list[str]:
    try:
        parsed: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        raise RecipeError(
            f"--set {key}: expected a key such as num_steps or optimizer.learning_rate; a name with other signs needs "
            "quotes within the argument: --set 'losses.\"feds.alignment\".weight=1'."
        ) from None
    parts: list[str] = []
    while isinstance(parsed, dict):
        ((name, parsed),) = parsed.items()
        parts.append(name)
    return parts
