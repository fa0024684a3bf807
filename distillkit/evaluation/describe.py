"""How large the registered pairs are."""

from __future__ import annotations

import itertools
from typing import Any, Literal, get_args, get_origin

from ..adapters import as_codec
from ..components import ComponentConfig
from ..plugins import Plugins
from .complexity import kmac_per_pixel, num_parameters


def describe_pairs(plugins: Plugins) -> list[dict[str, Any]]:
    """Return one row for teacher and student of every registered pair, in every combination of its listed choices.

    Options that are not a choice from a list stand at their defaults; a pair without defaults for all is left out.
    """
    rows = []
    for name, pair_class in sorted(plugins.components["pair"].items()):
        if any(field.is_required() for field in pair_class.Config.model_fields.values()):
            continue
        for options in _choices(pair_class.Config):
            _, config = plugins.configure("pair", name, options, f"pair {name}")
            pair: Any = pair_class(config)  # type: ignore[call-arg]
            for part, build in (("teacher", pair.build_teacher), ("student", pair.build_student)):
                codec = as_codec(build())
                rows.append(
                    {
                        "pair": name,
                        "options": config.model_dump(mode="json"),
                        "part": part,
                        "num_parameters": num_parameters(codec.module),
                        "kmac_per_pixel": kmac_per_pixel(codec),
                    }
                )
    return rows


def _choices(config: type[ComponentConfig]) -> list[dict[str, Any]]:
    lists = {
        name: get_args(field.annotation)
        for name, field in config.model_fields.items()
        if get_origin(field.annotation) is Literal
    }
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
