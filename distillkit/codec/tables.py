"""Entropy models of CompressAI's kind, made to code by `coder`, and the hash of all that they coded."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PairError
from .coder import MAX_SYMBOL, TableCoder

_TABLES = ("_quantized_cdf", "_cdf_length", "_offset")
# What a method must be called with to be one that is replaced here: a model whose methods differ keeps its own.
_BOTTLENECK = {"compress": ["x"], "decompress": ["strings", "size"]}
_CONDITIONAL = {"compress": ["inputs", "indexes", "means"], "decompress": ["strings", "indexes", "dtype", "means"]}


@final
class EntropyTables:
    """One entropy model's tables, and the coding of tensors by them.

    Its `compress` and `decompress` mean what those of CompressAI's `EntropyModel` mean, but for the bytes. What was
    just compressed is remembered, for codecs decompress it at once to go on with what the decoder will see.

    Args:
        model: has `_quantized_cdf`, `_cdf_length` and `_offset`, up to date.
        name: of the model in its codec.

    Raises:
        PairError: the tables are not up to date.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self._where = f"entropy model {name}"
        cdf, lengths, offsets = (getattr(model, key).cpu().numpy() for key in _TABLES)
        self.coder = TableCoder(cdf, lengths, offsets, self._where)
        self.checksum: int | None = None
        self._strings: list[bytes] = []
        self._symbols: list[Tensor] = []

    def reset(self) -> None:
        """Forget what was coded."""
        self.checksum, self._strings, self._symbols = None, [], []

    def note(self, symbols: np.ndarray, indexes: np.ndarray) -> None:
        """Take what was coded into the checksum: symbols and indexes of their tables, int32, shape (n,)."""
        crc = zlib.crc32(indexes.astype("<i4", copy=False).tobytes(), self.checksum or 0)
        self.checksum = zlib.crc32(symbols.astype("<i4", copy=False).tobytes(), crc)

    def round(self, inputs: Tensor, means: Tensor | None) -> Tensor:
        """Return the symbols, int32, of `inputs` around `means`, both of shape (B, C, ...).

        Raises:
            PairError: an input is not finite, or too far from its mean to be coded.
        """
        symbols = torch.round(inputs if means is None else inputs - means)
        if not bool((symbols.abs() <= MAX_SYMBOL).all()):
            raise PairError(
                f"{self._where}: expected latents up to {MAX_SYMBOL} from their means, got larger ones or some that "
                "are not finite; is the model trained, and are its weights finite?"
            )
        return symbols.int()

    def compress(self, inputs: Tensor, indexes: Tensor, means: Tensor | None = None) -> list[bytes]:
        """Return one byte string for each image of the batch; all tensors of shape (B, C, ...)."""
        symbols = self.round(inputs, means)
        self._strings, self._symbols = [], list(symbols)
        for image_symbols, image_indexes in zip(symbols, indexes, strict=True):
            step = _integers(image_symbols), _integers(image_indexes)
            self.note(*step)
            self._strings.append(self.coder.encode([step]))
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
        known = len(strings) == len(self._strings) and all(a is b for a, b in zip(strings, self._strings, strict=True))
        decoded = [self._decode(*pair) for pair in zip(strings, indexes, strict=True)] if not known else self._symbols
        symbols = torch.stack(decoded)
        if means is None:
            return symbols.to(dtype)
        # Some codecs collect the values in a float32 tensor, but in one direction only.
        return (symbols + means).float().to(means.dtype)

    def _decode(self, string: bytes, indexes: Tensor) -> Tensor:
        tables = _integers(indexes)
        decoder = self.coder.decoder(string)
        symbols = decoder.decode(tables)
        decoder.finish()
        self.note(symbols, tables)
        return torch.from_numpy(symbols).reshape(indexes.shape).to(indexes.device)


@final
class EntropyHash:
    """The tables of all entropy models of a codec, which are replaced in it, and the hash of what they code.

    The hash is over every symbol and the index of every table, in each model's own order; the means are not in it.
    Where a mean comes out differently by a rounding error the image does, too, by no more; where that moves the context
    of later symbols far enough to choose another table, the hash tells.

    Args:
        module: a codec's network; entropy models of CompressAI's kind inside get methods that code by `coder`.
    """

    def __init__(self, module: nn.Module) -> None:
        self.tables: dict[nn.Module, EntropyTables] = {}
        self._names: dict[EntropyTables, str] = {}
        for name, model in module.named_modules():
            if is_entropy_model(model):
                tables = EntropyTables(model, name)
                self.tables[model] = tables
                self._names[tables] = name
                _replace(model, tables)

    def reset(self) -> None:
        """Start the hash of another image."""
        for tables in self.tables.values():
            tables.reset()

    def digest(self) -> bytes:
        """Return the hash, 4 bytes; all 0 if nothing was coded."""
        coded = sorted((self._names[tables], tables.checksum) for tables in self._names if tables.checksum is not None)
        if not coded:
            return bytes(4)
        return max(zlib.crc32(repr(coded).encode()), 1).to_bytes(4, "little")


def is_entropy_model(model: nn.Module) -> bool:
    """Return whether `model` is an entropy model whose coding can be replaced."""
    if not all(isinstance(getattr(model, key, None), Tensor) for key in _TABLES):
        return False
    methods = _BOTTLENECK if hasattr(model, "_get_medians") else _CONDITIONAL
    return all(list(inspect.signature(getattr(model, m)).parameters) == names for m, names in methods.items())


def _replace(model: Any, tables: EntropyTables) -> None:
    if not hasattr(model, "_get_medians"):
        model.compress, model.decompress = tables.compress, tables.decompress
        if hasattr(model, "scale_table") and hasattr(model, "lower_bound_scale"):
            model.build_indexes = lambda scales: _scale_indexes(model, scales)
        return

    def like(size: Sequence[int]) -> tuple[Tensor, Tensor]:
        ones = [1] * (len(size) - 2)
        medians = model._get_medians().detach().reshape(1, -1, *ones)
        channels = torch.arange(size[1], dtype=torch.int32, device=medians.device).reshape(1, -1, *ones)
        return channels.expand(*size), medians

    def decompress(strings: Sequence[bytes], size: Sequence[int]) -> Tensor:
        indexes, medians = like((len(strings), tables.coder.num_tables, *size))
        return tables.decompress(strings, indexes, means=medians)

    model.compress = lambda x: tables.compress(x, *like(x.shape))
    model.decompress = decompress


def _scale_indexes(model: Any, scales: Tensor) -> Tensor:
    """Return for each scale how many entries of the table are smaller, the last one left out: its table's index."""
    return torch.bucketize(model.lower_bound_scale(scales.contiguous()), model.scale_table[:-1], out_int32=True)


def _integers(tensor: Tensor) -> np.ndarray:
    return tensor.reshape(-1).int().cpu().numpy()
