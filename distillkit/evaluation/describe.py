"""How large the registered pairs are."""

from __future__ import annotations

import itertools
from time import perf_counter
from typing import Any, Literal, get_args, get_origin

import numpy as np

from ..adapters import CodecAdapter, as_codec, fingerprint
from ..codec.runtime import ImageCodec
from ..components import ComponentConfig
from ..plugins import Plugins
from .complexity import kmac_per_pixel, num_parameters, parameters_by_part

#: Height and width of the picture that is timed: Kodak's.
TIMED_SIZE = (512, 768)


def describe_pairs(plugins: Plugins, *, timed: bool = False) -> list[dict[str, Any]]:
    """Return one row for teacher and student of every registered pair, in every combination of its listed choices.

    Options that are not a choice from a list stand at their defaults; a pair without defaults for all is left out.

    Args:
        plugins: where the pairs are registered.
        timed: also code a made-up picture of 768x512 pixels with random weights, once to warm up and once timed: whole
            files, from pixels to pixels.
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
                row = {
                    "pair": name,
                    "options": config.model_dump(mode="json"),
                    "part": part,
                    "num_parameters": num_parameters(codec.module),
                    "parameters_by_part": parameters_by_part(codec.module),
                    "kmac_per_pixel": kmac_per_pixel(codec),
                }
                rows.append(row | _coding_seconds(codec) if timed else row)
    return rows


def _coding_seconds(adapter: CodecAdapter) -> dict[str, float]:
    adapter.update()
    codec = ImageCodec(adapter, fingerprint(adapter.module), trusted=True)
    y, x = np.mgrid[: TIMED_SIZE[0], : TIMED_SIZE[1]]
    picture = np.stack([128 + 60 * np.sin(x / (17 + c)) + 60 * np.cos(y / (29 + c)) for c in range(3)], axis=2)
    image = picture.astype(np.uint8)
    seconds = {"encode_seconds": 0.0, "decode_seconds": 0.0}
    for _ in range(2):
        start = perf_counter()
        data = codec.encode(image)
        between = perf_counter()
        codec.decode(data)
        seconds = {"encode_seconds": between - start, "decode_seconds": perf_counter() - between}
    return seconds


def _choices(config: type[ComponentConfig]) -> list[dict[str, Any]]:
    lists = {
        name: get_args(field.annotation)
        for name, field in config.model_fields.items()
        if get_origin(field.annotation) is Literal
    }
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
