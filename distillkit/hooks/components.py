"""What every registered component is: a class with a typed configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import RecipeError, did_you_mean


class ComponentConfig(BaseModel):
    """Options of a component, as in a recipe. Subclass it; unknown options are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component:
    """A class that a plugin registers. It is built from an instance of its `Config`.

    Its docstring names where the method comes from, by arXiv number or title, in a paragraph that begins with
    `Source:`.

    Attributes:
        Config: its options.
        bibtex: BibTeX entries of sources that are not on arXiv, for `distillkit cite`.
    """

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    bibtex: ClassVar[str] = ""


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Return `values` as an instance of `model`.

    Raises:
        RecipeError: a value has the wrong type or range, or a key is unknown; one line for each, with a suggestion.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(model, item, where) for item in error.errors())) from None


def _explain(model: type[BaseModel], item: Any, where: str) -> str:
    path = [str(part) for part in item["loc"] if not str(part).startswith("(")]  # the tag of a union: "(number)"
    place = f"{where}: {'.'.join(path)}" if path else where
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        hint = did_you_mean(path[-1], known) or f" Known keys: {', '.join(sorted(known))}."
        return f"{place}: unknown key.{hint}"
    if item["type"] == "missing":
        return f"{place}: missing; add it to the recipe."
    if item["type"] == "value_error":
        return f"{place}: {item['ctx']['error']}"
    message = (item["msg"][0].lower() + item["msg"][1:]).replace("input should be ", "expected ")
    return f"{place}: {message}, got {item['input']!r}."


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        if name.isdigit():  # of a list, whose items are tables
            continue
        field = model.model_fields.get(name)
        annotation = field.annotation if field else None
        items = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
        tables = [each for each in items if issubclass(each, BaseModel)]
        if not tables:
            return []
        model = tables[0]
    return list(model.model_fields)
