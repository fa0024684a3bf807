"""Options that name files or addresses: a recipe may have some, a trained model's own file must not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, final, get_args

from pydantic import BaseModel

_LIKE_A_PATH = re.compile(
    r"[/\\~]|\.\.?[/\\]|[a-z]:[/\\]|zoo:|file:|.*://|.*\.(bin|ckpt|npy|npz|onnx|pickle|pkl|pth?|safetensors|tar|zip)$",
    re.IGNORECASE | re.DOTALL,
)


@final
@dataclass(frozen=True)
class Source:
    """Marks an option that names where weights come from and is no `Path`: `Annotated[str, Source()]`."""


def named_sources(value: Any, name: str = "") -> Iterator[str]:
    """Yield the names of options that are set to a source: declared as `Path` or `Source`, or a text like a path's.

    Args:
        value: a component's configuration, or options as in a file.
        name: of the option that it is.
    """
    if isinstance(value, Path) or (isinstance(value, str) and _LIKE_A_PATH.match(value)):
        yield name
    elif isinstance(value, BaseModel):
        for key, field in type(value).model_fields.items():
            item = getattr(value, key)
            declared = [*field.metadata, *_metadata(field.annotation)]
            if item is not None and any(isinstance(mark, Source) for mark in declared):
                yield _joined(name, key)
            else:
                yield from named_sources(item, _joined(name, key))
    elif is_dataclass(value):
        yield from named_sources(vars(value), name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_sources(item, _joined(name, str(key)))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from named_sources(item, _joined(name, str(index)))


def _metadata(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _metadata(part)


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
