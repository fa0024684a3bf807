"""The options of a component or recipe, read from its pydantic model and docstring: for the command line and docs."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: with the names of the tables around it: `data.crop`.
        type: as a reader would say it.
        default: as it would be written in a recipe; empty for "not set".
        required: whether it has no default.
        meaning: from the docstring's `Attributes`.
    """

    name: str
    type: str
    default: str
    required: bool
    meaning: str

    def __str__(self) -> str:
        return f"{self.name} = {'(required)' if self.required else self.default or '(not set)'}"


def options_of(model: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None) -> Iterator[Option]:
    """Yield the options of a model in their order; those of a nested table come in its place.

    Args:
        model: a component's `Config`, or a recipe.
        prefix: of the names.
        defaults: where its values come from, if not from its fields.
    """
    meanings = attributes_of(model)
    for name, field in model.model_fields.items():
        inner, required = field.annotation, field.is_required() and defaults is None
        default = (
            getattr(defaults, name) if defaults else None if required else field.get_default(call_default_factory=True)
        )
        if _is_table(inner):
            yield from options_of(inner, f"{prefix}{name}.", default)
        else:
            yield Option(prefix + name, _type_name(inner), to_toml(default), required, meanings.get(name, ""))
            choices = [get_args(each)[0] if hasattr(each, "__metadata__") else each for each in get_args(inner)]
            for table in filter(_is_table, choices):  # one that may be left out
                yield from options_of(table, f"{prefix}{name}.")


def attributes_of(documented: type) -> dict[str, str]:
    """Return the section `Attributes` of the docstrings of a class and its bases: name -> meaning, on one line."""
    found: dict[str, str] = {}
    for each in reversed(documented.__mro__):
        _, _, section = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section.partition("\n\n")[0], re.MULTILINE)
        found |= {name: re.sub(r"\s+", " ", text).strip() for name, text in entries}
    return found


def to_toml(value: Any) -> str:
    """Return a value as it would be written in a recipe; empty for None."""
    value = to_jsonable_python(value)
    if value is None:
        return ""
    if isinstance(value, dict):
        items = (f"{key} = {to_toml(item)}" for key, item in value.items() if item is not None)
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)


def _is_table(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Return whether it is a model whose keys are known."""
    known = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return known and (annotation.model_config.get("extra") != "allow" or len(annotation.model_fields) > 1)


def _type_name(annotation: Any) -> str:
    """Return `number`, `one of "a", "b"`, `list of text`, ... for a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is not None and hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    if origin is not None and str(origin) == "typing.Literal":
        return " or ".join(f"`{json.dumps(each)}`" for each in arguments)
    if origin in (list, tuple):
        return f"list: {_type_name(arguments[0])}"
    if origin is dict:
        return "table"
    if arguments:  # a union
        return " or ".join(_type_name(each) for each in arguments if each is not type(None))
    names = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "Path": "path"}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return names.get(getattr(annotation, "__name__", ""), "any")
