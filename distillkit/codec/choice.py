"""Chooses how a codec is coded: by distillkit's coder with exact entropy networks, or as it codes by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import PairError
from ..model.adapters import CodecAdapter, CompressedLatents
from ..model.conditioned import MIDDLE, ConditionedAdapter
from .fast.codec import FastCodec, Precision, can_be_fast
from .foreign import ForeignCodec
from .stopwatch import Stopwatch


def choose_coder(
    adapter: CodecAdapter,
    precision: Precision,
    *,
    trusted: bool,
    stopwatch: Stopwatch,
    compress: Callable[[FastCodec | ForeignCodec, int, int], CompressedLatents],
) -> tuple[FastCodec | ForeignCodec, CompressedLatents, str | None]:
    """Return the safest coder that a codec can use, a blank image's latents, and a note if it is not the best.

    Its networks are tried in float64, then in float32, both as they encode and as they decode.

    Args:
        adapter: the codec.
        precision: of analysis and synthesis.
        trusted: also decode with an unsafe coder of the codec's own.
        stopwatch: counts the coder's time.
        compress: gives a blank image's latents, from a coder and the image's strides.

    Raises:
        PairError: the codec cannot compress a blank image.
    """
    name = f"codec {type(adapter.module).__name__}"
    problem = f"{name}: its strings are not what distillkit's coder wrote"
    encodes: tuple[FastCodec, CompressedLatents, None] | None = None
    for exact in (torch.float64, torch.float32) if can_be_fast(adapter) else ():
        fast = FastCodec(adapter, precision, stopwatch, exact)
        try:
            latents = compress(fast, 1, 1)
            if not fast.coded_all(latents):
                break
            encodes = encodes or (fast, latents, None)
            fast.try_to_decode(latents, MIDDLE if isinstance(adapter, ConditionedAdapter) else None)
        except PairError:
            raise
        except Exception as error:  # of the codec's own code, in number types that it does not expect
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            problem = f"{name}: its entropy networks do not run in {exact} ({reason})"
            continue
        slower = "another device may be unable to decode its files"
        return fast, latents, None if exact == torch.float64 else f"{problem}; they run in float32: {slower}."
    if encodes:  # it decodes in no number type, and `decode` says why
        return encodes
    unsafe = can_be_fast(adapter)
    note = f"{problem}; it uses another coder, and its files are decoded only with `--trusted`."
    foreign = ForeignCodec(adapter, unsafe, trusted, stopwatch)
    return foreign, compress(foreign, 1, 1), note if unsafe else None
