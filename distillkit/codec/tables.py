"""Entropy models of CompressAI's kind, made to code by `coder`, and checksums of all that they coded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import PairError
from .checksums import step_checksum
from .coder import MAX_SYMBOL, Step, TableCoder
from .stopwatch import Stopwatch

_TABLES = ("_quantized_cdf", "_cdf_length", "_offset")
# What a method must be called with to be one that is replaced here: a model whose methods differ keeps its own.
_BOTTLENECK = {"compress": ["x"], "decompress": ["strings", "size"]}
_CONDITIONAL = {"compress": ["inputs", "indexes", "means"], "decompress": ["strings", "indexes", "dtype", "means"]}


@final
class EntropyTables:
    """One entropy model's tables, and the coding of tensors by them.

    Its `compress` and `decompress` do the same as CompressAI's `EntropyModel`, with other bytes. What was just
    compressed is remembered, because codecs decompress it right away to continue with what the decoder will see.

    Args:
        model: has `_quantized_cdf`, `_cdf_length` and `_offset`, up to date.
        name: of the model in its codec.
        stopwatch: counts the coder's time.

    Raises:
        PairError: the tables are not up to date.
    """

    def __init__(self, model: nn.Module, name: str, stopwatch: Stopwatch) -> None:
        self._where = f"entropy model {name}"
        self._stopwatch = stopwatch
        cdf, lengths, offsets = (getattr(model, key).cpu().numpy() for key in _TABLES)
        self._coder = TableCoder(cdf, lengths, offsets, self._where)
        self.num_tables = self._coder.num_tables
        self.checksum: int | None = None
        self.written: list[bytes] = []
        self._strings: list[bytes] = []
        self._symbols: list[Tensor] = []

    def reset(self) -> None:
        """Forget what was coded."""
        self.checksum, self.written, self._strings, self._symbols = None, [], [], []

    def encode(self, steps: list[Step]) -> bytes:
        """Return the bytes of all steps."""
        with self._stopwatch.time("coder"):
            self.written.append(self._coder.encode(steps))
        return self.written[-1]

    @contextmanager
    def decode(self, data: bytes) -> Generator[Callable[[Tensor], Tensor]]:
        """Return a function from tables' indexes to symbols, int32, of the same shape; at its end no bytes are left.

        Raises:
            BitstreamError: the bytes are not what `encode` gives for these indexes.
        """
        decoder = self._coder.decoder(data)

        def decode(indexes: Tensor) -> Tensor:
            with self._stopwatch.time("coder"):
                symbols = decoder.decode(integers(indexes))
            return torch.from_numpy(symbols).reshape(indexes.shape).to(indexes.device)

        yield decode
        decoder.finish()

    def note(self, indexes: Tensor, values: Tensor) -> None:
        """Take what was coded into the checksum: indexes of tables, and symbols plus means, of the same shape."""
        fixed = (values * 256).round_() if values.is_floating_point() else values * 256
        self.checksum = step_checksum(integers(indexes), integers(fixed), self.checksum or 0)

    def round(self, inputs: Tensor, means: Tensor | None) -> Tensor:
        """Return the symbols, int32, of `inputs` around `means`, both of shape (B, C, ...).

        Raises:
            PairError: an input is not finite, or too far from its mean to be coded.
        """
        symbols = torch.round(inputs if means is None else inputs - means)
        low, high = torch.aminmax(symbols) if symbols.numel() else (torch.zeros(()), torch.zeros(()))
        if not (float(low) >= -MAX_SYMBOL and float(high) <= MAX_SYMBOL):  # both are nan if any is
            raise PairError(
                f"{self._where}: expected latents up to {MAX_SYMBOL} from their means, got larger ones or some that "
                "are not finite; is the model trained, and are its weights finite?"
            )
        return symbols.int()

    def compress(self, inputs: Tensor, indexes: Tensor, means: Tensor | None = None) -> list[bytes]:
        """Return one byte string for each image of the batch; all tensors of shape (B, C, ...)."""
        symbols = self.round(inputs, means)
        self.note(indexes, symbols if means is None else symbols + means)
        self._symbols = list(symbols)
        pairs = zip(symbols, indexes, strict=True)
        self._strings = [self.encode([(integers(image), integers(tables))]) for image, tables in pairs]
        return self._strings

    def decompress(
        self,
        strings: Sequence[bytes],
        indexes: Tensor,
        dtype: torch.dtype = torch.float,
        means: Tensor | None = None,
    ) -> Tensor:
        """Return the values that were compressed, shape of `indexes`: symbols, plus `means` if there are any.

        Raises:
            BitstreamError: the bytes are not what `compress` gives for these indexes.
        """
        if len(strings) == len(self._strings) and all(a is b for a, b in zip(strings, self._strings, strict=True)):
            symbols = torch.stack(self._symbols)
            return symbols.to(dtype) if means is None else for_decoder(symbols + means)
        decoded = []
        for string, image_indexes in zip(strings, indexes, strict=True):
            with self.decode(string) as decode:
                decoded.append(decode(image_indexes))
        symbols = torch.stack(decoded)
        values = symbols if means is None else symbols + means
        self.note(indexes, values)
        return values.to(dtype) if means is None else for_decoder(values)


@final
class EntropyWatch:
    """The tables of all entropy models of a codec, which are replaced in it, and the checksums of what they code.

    They are over the table's index and the value (symbol plus mean, in 1/256 of a quantisation step) of everything
    coded, in each model's own order. In float64 a rounding error moves a value into another 1/256 about once in a
    million pictures.

    Args:
        module: a codec's network; entropy models of CompressAI's kind inside get methods that code by `coder`.
        stopwatch: counts the coder's time.
    """

    def __init__(self, module: nn.Module, stopwatch: Stopwatch) -> None:
        self.tables: dict[nn.Module, EntropyTables] = {}
        self._names: dict[EntropyTables, str] = {}
        for name, model in module.named_modules():
            if is_entropy_model(model) and len(cast(Any, model)._quantized_cdf):  # without tables: likelihoods alone
                tables = EntropyTables(model, name, stopwatch)
                self.tables[model] = tables
                self._names[tables] = name
                _replace(model, tables)
            if has_usual_indexes(model):
                model.build_indexes = ScaleIndexes(model.scale_table, model.lower_bound_scale)  # type: ignore[arg-type]

    @property
    def written(self) -> list[bytes]:
        """All substreams encoded since the last reset."""
        return [string for tables in self._names for string in tables.written]

    def reset(self) -> None:
        """Start with another image."""
        for tables in self._names:
            tables.reset()

    def checksums(self) -> dict[str, int]:
        """Return name -> checksum of every entropy model that coded since the last reset."""
        return {name: tables.checksum for tables, name in self._names.items() if tables.checksum is not None}


def is_entropy_model(model: nn.Module) -> bool:
    """Return whether `model` is an entropy model whose coding can be replaced."""
    if not all(isinstance(getattr(model, key, None), Tensor) for key in _TABLES):
        return False
    methods = _BOTTLENECK if hasattr(model, "_get_medians") else _CONDITIONAL
    return all(list(inspect.signature(getattr(model, m)).parameters) == names for m, names in methods.items())


def has_usual_indexes(model: Any) -> bool:
    """Return whether a model's `build_indexes` is CompressAI's, whatever its other methods are; it is tried."""
    edges, bound = getattr(model, "scale_table", None), getattr(model, "lower_bound_scale", None)
    if not (isinstance(edges, Tensor) and edges.numel() > 1 and isinstance(getattr(bound, "bound", None), Tensor)):
        return False
    near = [edges, torch.nextafter(edges, 2 * edges), torch.nextafter(edges, 0 * edges), 2 * edges, edges / 2, -edges]
    scales = torch.cat(near).reshape(1, -1, 1, 1)
    try:
        theirs = model.build_indexes(scales)
        return torch.equal(theirs.int(), ScaleIndexes(edges, bound)(scales).int())  # type: ignore[arg-type]
    except Exception:  # of a fork's: it has no such method, or one that takes something else
        return False


def _replace(model: Any, tables: EntropyTables) -> None:
    """Have an entropy model code by the `compress` and `decompress` of `tables`."""
    if not hasattr(model, "_get_medians"):
        model.compress, model.decompress = tables.compress, tables.decompress
        return
    num_tables = len(model._quantized_cdf)

    def like(size: Sequence[int]) -> tuple[Tensor, Tensor]:
        ones = [1] * (len(size) - 2)
        medians = model._get_medians().detach().reshape(1, -1, *ones)
        channels = torch.arange(size[1], dtype=torch.int32, device=medians.device).reshape(1, -1, *ones)
        return channels.expand(*size), medians

    def decompress(strings: Sequence[bytes], size: Sequence[int]) -> Tensor:
        indexes, medians = like((len(strings), num_tables, *size))
        return tables.decompress(strings, indexes, means=medians)

    model.compress = lambda x: tables.compress(x, *like(x.shape))
    model.decompress = decompress


@final
class ScaleIndexes:
    """For each scale, how many entries of the scale table are smaller, the last one left out: its table's index.

    The exponent and first bits of a float64 name a bin with one edge at most: one look-up and one comparison take the
    place of a binary search.

    Args:
        scale_table: shape (n,), rising.
        lower_bound: of scales: a module.
    """

    def __init__(self, scale_table: Tensor, lower_bound: nn.Module) -> None:
        self._edges, self._lower_bound = scale_table[:-1].contiguous(), lower_bound
        bound = getattr(lower_bound, "bound", None)
        # A scale below the first edge has the first table whatever it is raised to below that edge.
        self._is_bounded = isinstance(bound, Tensor) and len(self._edges) > 0 and bool(bound.max() <= self._edges[0])
        self._bins: tuple[int, int, NDArray[Any], NDArray[Any]] | None = None
        edges = self._edges.detach().cpu().double().numpy()
        for bits in range(3, 9):
            shift = 52 - bits
            places = edges.view(np.int64) >> shift
            if len(edges) and edges.min() > 0 and len(np.unique(places)) == len(edges) and np.all(np.diff(edges) > 0):
                bins = np.arange(places.min(), places.max() + 2)
                before = np.searchsorted(places, bins).astype(np.int32)  # edges in lower bins
                inside = np.append(edges, np.inf)[before]
                inside[~np.isin(bins, places)] = np.inf
                self._bins = shift, int(places.min()), before, inside
                return

    def __call__(self, scales: Tensor) -> Tensor:
        """Return the indexes, int32, of the same shape as `scales`."""
        scales = scales.contiguous()
        if self._bins is None or scales.dtype != torch.float64 or scales.device.type != "cpu":
            return torch.bucketize(self._lower_bound(scales), self._edges, out_int32=True)
        shift, first, before, inside = self._bins
        values = scales.numpy() if self._is_bounded else self._lower_bound(scales).numpy()
        bins = values.view(np.int64) >> shift
        bins -= first
        indexes = before.take(bins, mode="clip")
        indexes += values > inside.take(bins, mode="clip")
        return torch.from_numpy(indexes)


def for_decoder(values: Tensor) -> Tensor:
    """Return values with the precision of float32: some codecs collect them in such a tensor, in one direction only."""
    return values.float().to(values.dtype)


def integers(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values as an array of int32, shape (n,)."""
    return tensor.reshape(-1).int().cpu().numpy()
