"""How large the registered pairs are."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from ..codec.runtime import ImageCodec
from ..hooks.loader import Plugins
from ..model.adapters import CodecAdapter, as_codec, fingerprint
from ..model.complexity import kmac_per_pixel, num_parameters, parameters_by_part
from ..taps.pair import CodecPair

#: Height and width of the picture that is timed: Kodak's.
TIMED_SIZE = (512, 768)
TIMED_ROUNDS = 3  #: after one to warm up; the smallest counts


def describe_pairs(plugins: Plugins, *, timed: bool = False) -> list[dict[str, Any]]:
    """Return one row for teacher and student of every registered pair, under each of its `examples`.

    Args:
        plugins: where the pairs are registered.
        timed: also code a made-up picture of 768x512 pixels with random weights, whole files, from pixels to pixels:
            once to warm up, then three times, of which the smallest counts.
    """
    rows = []
    for name in sorted(plugins.components["pair"]):
        pair_class: type[CodecPair] = plugins.get("pair", name, "pairs")
        for options in pair_class.examples():
            pair = pair_class(plugins.configure("pair", name, options, f"pair {name}")[1])
            for part, build in (("teacher", pair.build_teacher), ("student", pair.build_student)):
                codec = as_codec(build())
                row = {
                    "pair": name,
                    "options": options,
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
    rounds: list[tuple[float, float]] = []
    for _ in range(1 + TIMED_ROUNDS):
        start = perf_counter()
        data = codec.encode(image)
        between = perf_counter()
        codec.decode(data)
        rounds.append((between - start, perf_counter() - between))
    encode, decode = map(min, zip(*rounds[1:], strict=True))
    return {"encode_seconds": encode, "decode_seconds": decode}
