"""The entropy coder's steps of one pass of a codec, recorded in place of being carried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from . import operators
from .values import Numbers

_CODING = (operators.code, operators.code_channels, operators.put)


@final
class Substream(bytes):
    """Stands for a byte string of the file while a program is recorded."""

    number: int

    @classmethod
    def of(cls, number: int) -> Substream:
        """Return the byte string of a number."""
        made = cls(f"substream {number}".encode())
        made.number = number
        return made


@final
@dataclass
class Recorder:
    """The coder's steps of one pass.

    Attributes:
        models: the entropy models, in the order of the codec's modules: their tables, by name.
        kept: what the operators returned; it keeps them in the trace.
        num_substreams: that were written.
        num_groups: of symbols that were coded.
        grid: of a decoder: a map of the picture's size in strides.
    """

    models: dict[str, Any]
    kept: list[Tensor] = field(default_factory=list[Tensor])
    num_substreams: int = 0
    num_groups: int = 0
    grid: Tensor | None = None

    def reset(self) -> None:
        """Start another pass."""
        self.kept, self.num_substreams, self.num_groups = [], 0, 0

    def keep(self, value: Tensor) -> Tensor:
        """Have a value returned by the traced pass."""
        self.kept.append(value)
        return value

    def new_substream(self) -> Substream:
        """Return a new byte string."""
        self.num_substreams += 1
        return Substream.of(self.num_substreams - 1)

    def keep_call(self, operator: Any, *args: Any) -> Tensor:
        """Return what an operator returns, which is kept."""
        self.num_groups += operator in _CODING
        return self.keep(operator(*args, len(self.kept)))


@final
class RecordedTables:
    """An entropy model's `compress` and `decompress`, as `codec.tables` has them, recorded."""

    def __init__(self, recorder: Recorder, model: int, rounds: bool) -> None:
        self._recorder, self._model, self._rounds = recorder, model, rounds
        self._seen: list[tuple[Substream, Tensor]] = []  # what was just compressed, as `codec.tables` remembers it

    def compress(self, inputs: Tensor, indexes: Tensor, means: Tensor | None = None) -> list[Substream]:
        """Note that values are coded around their means."""
        substream = self._recorder.new_substream()
        args = (inputs, indexes, means, self._model, substream.number, self._rounds)
        self._seen.append((substream, self._recorder.keep_call(operators.code, *args)))
        return [substream]

    def decompress(
        self, strings: list[Any], indexes: Tensor, dtype: torch.dtype = torch.float, means: Tensor | None = None
    ) -> Tensor:
        """Return what was coded."""
        for substream, values in self._seen:
            if substream is strings[0]:
                return values
        return self._recorder.keep_call(operators.decode, indexes, means, self._model, strings[0].number, self._rounds)

    def compress_channels(self, x: Tensor) -> list[Substream]:
        """Note that values are coded, with a table for each channel."""
        substream = self._recorder.new_substream()
        args = (x, self._model, substream.number, self._rounds)
        self._seen.append((substream, self._recorder.keep_call(operators.code_channels, *args)))
        return [substream]

    def decompress_channels(self, strings: list[Any], size: Any) -> Tensor:
        """Return what was coded, with a table for each channel."""
        for substream, values in self._seen:
            if substream is strings[0]:
                return values
        grid: Any = self._recorder.grid
        model = list(self._recorder.models.values())[self._model]
        sides = [_hint(a) // _hint(b) for a, b in zip(size, grid.shape[2:], strict=True)]
        args = (grid, len(model._quantized_cdf), *sides, self._model, strings[0].number, self._rounds)
        return self._recorder.keep_call(operators.decode_channels, *args)


def _hint(side: Any) -> int:
    """Return a side's length in the example."""
    hint: Any = side.node.hint if isinstance(side, torch.SymInt) else side
    return int(hint)


@final
class Encoder:
    """CompressAI's encoders, recorded."""

    def __init__(self, recorder: Recorder, is_buffered: bool) -> None:
        self._recorder, self._is_buffered = recorder, is_buffered
        self._substream: Substream | None = None

    def encode_with_indexes(self, symbols: Any, indexes: Any, cdfs: Any, *_: Any) -> Substream | None:
        """Note that symbols are coded, and return their byte string, if the encoder is not a buffered one."""
        if self._substream is None:
            self._substream = self._recorder.new_substream()
        model = _model_of(self._recorder, cdfs)
        for values, chosen in zip(_tensors(symbols), _tensors(indexes), strict=True):
            self._recorder.keep_call(operators.put, values, chosen, model, self._substream.number)
        return None if self._is_buffered else self.flush()

    def flush(self) -> Substream:
        """Return the byte string."""
        substream, self._substream = self._substream or self._recorder.new_substream(), None
        return substream


@final
class Decoder:
    """CompressAI's decoder, recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._substream: Any = None

    def set_stream(self, encoded: Any) -> None:
        """Take a byte string."""
        self._substream = encoded

    def decode_stream(self, indexes: Any, cdfs: Any, *_: Any) -> Numbers:
        """Return the next symbols."""
        model = _model_of(self._recorder, cdfs)
        number = self._substream.number
        return Numbers(self._recorder.keep_call(operators.take, each, model, number) for each in _tensors(indexes))

    def decode_with_indexes(self, encoded: Any, indexes: Any, cdfs: Any, *rest: Any) -> Numbers:
        """Return a byte string's first symbols."""
        self.set_stream(encoded)
        return self.decode_stream(indexes, cdfs, *rest)


def _tensors(values: Any) -> list[Tensor]:
    if all(isinstance(value, Tensor) for value in values):
        return list(values)
    raise ValueError("its symbols are made one by one in Python")


def _model_of(recorder: Recorder, cdfs: Any) -> int:
    for number, model in enumerate(recorder.models.values()):
        if isinstance(cdfs, Numbers) and cdfs[0] is model._quantized_cdf:
            return number
    raise ValueError("it passes the coder tables that are not an entropy model's")
