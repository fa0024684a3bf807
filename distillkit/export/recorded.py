"""A codec as programs, networks and tables: what another runtime needs to code pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..codec.fast.codec import can_be_fast
from ..codec.shapes import shape_rule
from ..errors import PairError
from ..model.adapters import CodecAdapter
from ..model.conditioned import ConditionedAdapter
from .caches import code_smallest
from .networks import LARGEST, Network, first_line, quiet
from .program import cut
from .record import Recording


@final
@dataclass(frozen=True)
class Recorded:
    """A codec as another runtime runs it.

    Attributes:
        encode: steps from a picture to the substreams, see `program.cut`.
        decode: steps from a map of the picture's size in strides to the picture.
        substreams: numbers of the substreams that `encode` writes, in the file's order.
        networks: of both programs.
        tables: `N.key` -> array, for the N-th entropy model: the coder's tables, and the scales' where there are some.
        entropy_models: their names in the codec.
    """

    encode: list[dict[str, Any]]
    decode: list[dict[str, Any]]
    substreams: list[int]
    networks: list[Network]
    tables: dict[str, Tensor]
    entropy_models: list[str]


def record(codec: CodecAdapter) -> Recorded:
    """Return the programs of a codec, whatever its structure.

    Args:
        codec: its entropy tables up to date.

    Raises:
        PairError: what the codec does cannot be traced for pictures of any size.
    """
    name = type(codec.module).__name__
    if isinstance(codec, ConditionedAdapter):
        raise PairError(
            f"codec {name}: expected one of a single rate, or of many by gain units around the parts of a known "
            "structure, got many rates by other means. Deploy it as one safetensors file with `--to model`."
        )
    if not can_be_fast(codec):
        raise PairError(
            f"codec {name}: expected one that codes by CompressAI's entropy models or coder, got another coder, which "
            "an export has no place for. Deploy it as one safetensors file with `--to model`."
        )
    few, many = (_count_runs(codec, rows, columns) for rows, columns in ((1, 1), (1, 2)))
    if few != many:
        raise PairError(
            f"codec {name}: expected one that codes many positions at a time, got a serial context: its modules run "
            f"{few} times for a picture of one stride and {many} times for one of two, and each run would be a "
            "network. Deploy it as one safetensors file with `--to model`."
        )
    parts = []
    try:
        shape = shape_rule(codec)
        code_smallest(codec)
        recording = Recording(codec, shape)
        with quiet():
            encoding = recording.encoding(LARGEST)
            decoding = recording.decoding(len(encoding.substreams), LARGEST)
            for program, graph in (("encode", encoding.graph), ("decode", decoding.graph)):
                parts.append(cut(graph.run_decompositions({}), program))
    except Exception as error:  # whatever the tracer meets in a codec that was not made for it
        raise PairError(
            f"codec {name}: expected one whose compress and decompress can be traced for pictures of any size, got "
            f"{first_line(error)}. Deploy it as one safetensors file with `--to model`."
        ) from error
    (encode, encoders), (decode, decoders) = parts
    models = recording.models
    tables: dict[str, Tensor] = {}
    for number, model in enumerate(models.values()):
        found = {"cdf": model._quantized_cdf, "cdf_length": model._cdf_length, "offset": model._offset}
        if hasattr(model, "scale_table") and hasattr(model, "lower_bound_scale"):
            found |= {"scale_table": model.scale_table, "scale_bound": model.lower_bound_scale.bound}
        if hasattr(model, "_get_medians"):
            found["medians"] = model._get_medians()
        tables |= {f"{number}.{key}": tensor.detach().cpu().clone() for key, tensor in found.items()}
    return Recorded(encode, decode, encoding.substreams, [*encoders, *decoders], tables, list(models))


@torch.no_grad()
def _count_runs(codec: CodecAdapter, rows: int, columns: int) -> int:
    """Return how often modules run when a picture of this many strides is compressed."""
    count = 0

    def add(*_: Any) -> None:
        nonlocal count
        count += 1

    handles = [module.register_forward_pre_hook(add) for module in codec.module.modules()]
    try:
        codec.compress(torch.zeros(1, codec.samples.channels, rows * codec.stride, columns * codec.stride))
    finally:
        for handle in handles:
            handle.remove()
    return count
