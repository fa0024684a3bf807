"""A codec as programs, networks and tables: what another runtime needs to code pictures."""

from __future__ import annotations

from collections.abc import Callable
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
from .functional import functional
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


def record(codec: CodecAdapter, note: Callable[[str], None]) -> Recorded:
    """Return the programs of a codec, whatever its structure.

    Args:
        codec: its entropy tables up to date.
        note: receives what is done, for it takes minutes.

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
    _refuse_serial(name, "its modules run", [_count_runs(codec, *size) for size in ((1, 1), (1, 2))])
    parts = []
    try:
        shape = shape_rule(codec)
        code_smallest(codec)
        recording = Recording(codec, shape)
        groups = [recording.num_groups(*size) for size in ((1, 1), (1, 2))]
        _refuse_serial(name, "the coder is called", groups)
        millions = sum(parameter.numel() for parameter in codec.module.parameters()) / 1e6
        note(f"recording {name}, {millions:.2f} M parameters, as about {2 * groups[0] + 2} networks")
        with quiet():
            encoding = recording.encoding(LARGEST)
            parts.append(cut(functional(encoding.graph), "encode"))
        note("recorded how it compresses")
        with quiet():
            decoding = recording.decoding(len(encoding.substreams), LARGEST)
            parts.append(cut(functional(decoding.graph), "decode"))
        note("recorded how it decompresses")
    except PairError:
        raise
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


def _refuse_serial(name: str, what: str, counts: list[int]) -> None:
    if counts[0] != counts[1]:
        raise PairError(
            f"codec {name}: expected one that codes many positions at a time, got a serial context: {what} "
            f"{counts[0]} times for a picture of one stride and {counts[1]} times for one of two, and each time would "
            "be a network. Deploy it as one safetensors file with `--to model`."
        )


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
