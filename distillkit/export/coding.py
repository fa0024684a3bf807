"""What a driver codes between the networks of a codec of known kind: latents to substreams, and back; numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..codec.checksums import step_checksum
from ..codec.coder import TableCoder


class Coding:
    """What encoding and decoding share: tables, and the hash of all that was coded. Latents are in float64."""

    def __init__(
        self, coders: Mapping[str, TableCoder], tables: Mapping[str, NDArray[Any]], names: Mapping[str, str]
    ) -> None:
        self.coders, self.tables, self._names = coders, tables, names
        self.strings: list[bytes] = []
        self.checksums: dict[str, int] = {}  # of each entropy model, as distillkit makes them

    def _seen(self, latent: str, indexes: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
        """Take values, in float64, into the hash, and return them."""
        name = self._names[latent]
        with np.errstate(all="ignore"):  # a forged file's values may be too large, or no numbers at all
            fixed = np.rint(values * 256).astype(np.int32)
        self.checksums[name] = step_checksum(indexes, fixed, self.checksums.get(name, 0))
        return values

    def _indexes(self, scales: NDArray[Any]) -> NDArray[Any]:
        edges, least = (self.tables[f"y.{key}"].astype(np.float64) for key in ("scale_table", "scale_bound"))
        return np.searchsorted(edges[:-1], np.maximum(scales.reshape(-1), least)).astype(np.int32)

    def _medians(self, latent: str) -> NDArray[Any]:
        return self.tables[f"{latent}.medians"].astype(np.float64).reshape(1, -1, 1, 1)


@final
class Encoding(Coding):
    """Codes latents, shape (1, C, h, w), and returns what the decoder will see."""

    def bottleneck(self, latent: str, values: NDArray[Any]) -> NDArray[Any]:
        """Code a latent by an entropy bottleneck."""
        medians = self._medians(latent)
        channels = np.arange(values.shape[1], dtype=np.int32).reshape(1, -1, 1, 1)
        return _rounded(self._code(latent, values, np.broadcast_to(channels, values.shape), medians))

    def gaussian(self, scales: NDArray[Any], means: NDArray[Any] | None, values: NDArray[Any]) -> NDArray[Any]:
        """Code y by Gaussians."""
        return self._code("y", values, self._indexes(scales), 0.0 if means is None else means)

    def _code(self, latent: str, values: NDArray[Any], indexes: NDArray[Any], means: Any) -> NDArray[Any]:
        symbols = np.rint(values.astype(np.float64) - means).astype(np.int32)
        step = symbols.reshape(-1), np.ascontiguousarray(indexes.reshape(-1))
        self.strings.append(self.coders[latent].encode([step]))
        return self._seen(latent, step[1], symbols + means)


@final
class Decoding(Coding):
    """Returns latents that were coded, shape (1, C, h, w)."""

    def bottleneck(self, latent: str, data: bytes, shape: tuple[int, int, int]) -> NDArray[Any]:
        """Decode a latent, whose shape is (C, h, w), by an entropy bottleneck."""
        indexes = np.repeat(np.arange(shape[0], dtype=np.int32), shape[1] * shape[2])
        symbols = self._decode(latent, data, indexes).reshape(1, *shape)
        return _rounded(self._seen(latent, indexes, symbols + self._medians(latent)))

    def gaussian(self, scales: NDArray[Any], means: NDArray[Any] | None, _: Any) -> NDArray[Any]:
        """Decode y, from the next of the substreams, by Gaussians."""
        indexes = self._indexes(scales)
        symbols = self._decode("y", self.strings.pop(0), indexes).reshape(scales.shape)
        return self._seen("y", indexes, symbols + (0.0 if means is None else means))

    def _decode(self, latent: str, data: bytes, indexes: NDArray[Any]) -> NDArray[Any]:
        decoder = self.coders[latent].decoder(data)
        symbols = decoder.decode(indexes)
        decoder.finish()
        return symbols


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Return values with the precision of float32, as distillkit passes on what a bottleneck coded."""
    return values.astype(np.float32).astype(np.float64)
