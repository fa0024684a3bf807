"""What codecs code by calling CompressAI's rANS coder themselves, in their own loops.

Coders here have the methods of that coder's classes (see `stand_ins`), and code symbol after symbol, because a decoder
may ask for any number at a time. They never read outside their input, and what was coded is hashed.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, PairError
from .coder import MAX_SYMBOL, MISMATCH, TableCoder, check_length, check_written, stream, uniform
from .stopwatch import Stopwatch

_NAME = "coder calls"  # of what was coded here, in a file's entropy hash


@final
class CoderCalls:
    """What one codec codes by calling the coder itself, and the tables that it passes.

    Attributes:
        written: what was encoded since the last reset.
        had_some: whether there was any call.

    Args:
        stopwatch: counts the coder's time.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._coders: dict[bytes, TableCoder] = {}
        self._known: tuple[Any, TableCoder] | None = None
        self.written: list[bytes] = []
        self.had_some = False
        self._streams: list[_Stream] = []

    def reset(self) -> None:
        """Start with another image."""
        self.written, self._streams, self._known = [], [], None

    def checksums(self, direction: str) -> dict[str, int]:
        """Return the checksum of all streams coded in a direction, `encode` or `decode`, under one name, or nothing.

        Raises:
            BitstreamError: a stream has bytes left.
        """
        streams = [each for each in self._streams if each.direction == direction]
        if any(each.ans is not None and not each.ans.is_empty() for each in streams):
            raise BitstreamError(f"compressed file: expected a substream to end with its last symbol; {MISMATCH}")
        return {_NAME: sum(each.checksum() for each in streams) % 2**32} if streams else {}

    def tables(self, cdfs: Any, sizes: Any, offsets: Any) -> TableCoder:
        """Return the tables that a call passes; they are made once."""
        if self._known is not None and self._known[0] is cdfs:
            return self._known[1]
        lengths = np.asarray(sizes, np.int32).reshape(-1)
        longest = max(map(len, cdfs), default=0)
        rows = np.zeros((len(cdfs), longest), np.int32)
        for row, values in zip(rows, cdfs, strict=True):
            row[: len(values)] = values
        first = np.asarray(offsets, np.int32).reshape(-1)
        key = hashlib.sha256(b"".join(part.tobytes() for part in (lengths, first, rows))).digest()
        if key not in self._coders:
            self._coders[key] = TableCoder(rows, lengths, first, "entropy model whose tables the codec passes itself")
        self._known = cdfs, self._coders[key]
        return self._coders[key]

    def opened(self, direction: str) -> _Stream:
        """Return a new stream of symbols."""
        self.had_some = True
        self._streams.append(_Stream(direction))
        return self._streams[-1]

    def timed(self) -> Any:
        """Return a context whose time counts as the coder's."""
        return self._stopwatch.time("coder")

    def made(self, kind: str) -> Any:
        """Return a coder of a kind: `RansEncoder`, `BufferedRansEncoder` or `RansDecoder`."""
        return _Decoder(self) if kind == "RansDecoder" else _Encoder(self, kind == "BufferedRansEncoder")


@final
class _Stream:
    """Symbols of one byte string, and the CRCs of their tables' indexes and of themselves."""

    def __init__(self, direction: str) -> None:
        self.direction = direction
        self.ans: Any = None  # of a decoder
        self.num_bytes, self.bits = 0, 0.0  # of the string, and what its symbols take at least
        self._crcs = [0, 0]

    def expect(self, tables: TableCoder, indexes: NDArray[Any]) -> None:
        self.bits += float(tables.least_bits[indexes].sum())

    def note(self, indexes: NDArray[Any], symbols: NDArray[Any]) -> None:
        for place, values in enumerate((indexes, symbols)):
            self._crcs[place] = zlib.crc32(np.ascontiguousarray(values, "<i4").data, self._crcs[place])

    def checksum(self) -> int:
        return zlib.crc32(np.array(self._crcs, "<u4").tobytes())


@final
class _Encoder:
    """`RansEncoder`, whose every call gives bytes, or `BufferedRansEncoder`, which gives them when flushed."""

    def __init__(self, calls: CoderCalls, is_buffered: bool) -> None:
        self._calls, self._is_buffered = calls, is_buffered
        self._buffer: list[tuple[TableCoder, NDArray[Any], NDArray[Any]]] = []

    def encode_with_indexes(self, symbols: Any, indexes: Any, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> bytes | None:
        with self._calls.timed():
            tables = self._calls.tables(cdfs, cdfs_sizes, offsets)
            step = _integers(symbols), _integers(indexes)
            if len(step[0]) != len(step[1]) or (step[1].size and not 0 <= step[1].min() <= step[1].max() < len(cdfs)):
                raise PairError(
                    f"entropy coder: expected {len(step[0])} indexes, each of one of {len(cdfs)} tables, got others; "
                    "correct the codec's compress."
                )
            self._buffer.append((tables, *step))
        return None if self._is_buffered else self.flush()

    def flush(self) -> bytes:
        with self._calls.timed():
            stream_of_symbols, coder = self._calls.opened("encode"), stream.stack.AnsCoder()
            for tables, symbols, indexes in self._buffer:
                stream_of_symbols.expect(tables, indexes)
                stream_of_symbols.note(indexes, symbols)
            for tables, symbols, indexes in reversed(self._buffer):  # a stack: what is coded last comes out first
                _push(coder, tables, symbols, indexes)
            self._buffer = []
            data = coder.get_compressed().astype("<u4", copy=False).tobytes().rstrip(b"\0")
            check_written(len(data), stream_of_symbols.bits, "entropy coder")
        self._calls.written.append(data)
        return data


@final
class _Decoder:
    """`RansDecoder`."""

    def __init__(self, calls: CoderCalls) -> None:
        self._calls = calls
        self._stream: _Stream | None = None

    def set_stream(self, encoded: bytes) -> None:
        encoded = bytes(encoded)
        if encoded.endswith(b"\0"):
            raise BitstreamError(f"compressed file: expected a substream that ends in no zero byte; {MISMATCH}")
        words = np.frombuffer(encoded + bytes(-len(encoded) % 4), "<u4").astype(np.uint32)
        self._stream = self._calls.opened("decode")
        self._stream.ans = stream.stack.AnsCoder(words)
        self._stream.num_bytes = len(encoded)

    def decode_stream(self, indexes: Any, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> list[int]:
        if self._stream is None:
            raise PairError("entropy coder: expected set_stream before decode_stream; correct the codec's decompress.")
        with self._calls.timed():
            tables, chosen = self._calls.tables(cdfs, cdfs_sizes, offsets), _integers(indexes)
            if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(cdfs):
                raise BitstreamError(f"compressed file: expected indexes of {len(cdfs)} tables, got others; {MISMATCH}")
            self._stream.expect(tables, chosen)
            check_length(self._stream.num_bytes, self._stream.bits)
            symbols = _pop(self._stream.ans, tables, chosen)
            self._stream.note(chosen, symbols)
        return symbols.tolist()

    def decode_with_indexes(self, encoded: bytes, indexes: Any, cdfs: Any, cdfs_sizes: Any, offsets: Any) -> list[int]:
        self.set_stream(encoded)
        return self.decode_stream(indexes, cdfs, cdfs_sizes, offsets)


def _push(coder: Any, tables: TableCoder, symbols: NDArray[Any], indexes: NDArray[Any]) -> None:
    """Put symbols on the stack, the last one first; an escaped symbol's number comes out after its escape."""
    entries, escapes = symbols.astype(np.int64) - tables.offsets[indexes], tables.escapes[indexes]
    largest = int(np.abs(symbols).max(initial=0))
    if largest > MAX_SYMBOL:
        raise PairError(
            f"entropy coder: expected symbols up to {MAX_SYMBOL}, got {largest}; is the model trained, and are its "
            "weights finite?"
        )
    outside = (entries < 0) | (entries >= escapes)
    numbers = np.where(entries < 0, -2 * entries - 1, 2 * (entries - escapes))
    lengths = np.frexp(numbers)[1]
    models, push = tables.models, coder.encode_reverse
    rows = zip(
        *(values[::-1].tolist() for values in (entries, escapes, indexes, outside, numbers, lengths)), strict=True
    )
    for entry, escape, index, is_outside, number, length in rows:
        if is_outside:
            if length > 1:  # the highest bit is known to be 1
                push(number - (1 << length >> 1), uniform(length))
            push(length, tables.length_model)
            entry = escape
        push(entry, models[index])


def _pop(ans: Any, tables: TableCoder, indexes: NDArray[Any]) -> NDArray[Any]:
    """Take the next symbols, one for each index of a table."""
    models, pop = tables.models, ans.decode
    symbols = np.empty(len(indexes), np.int32)
    for place, (index, escape) in enumerate(zip(indexes.tolist(), tables.escapes[indexes].tolist(), strict=True)):
        symbol = pop(models[index])
        if symbol == escape:
            length = pop(tables.length_model)
            number = (1 << length >> 1) + (pop(uniform(length)) if length > 1 else 0)
            symbol = -(number + 1 >> 1) if number & 1 else (number >> 1) + escape
        symbols[place] = symbol
    return symbols + tables.offsets[indexes]


def _integers(values: Any) -> NDArray[Any]:
    return np.asarray(values).reshape(-1).astype(np.int32)
