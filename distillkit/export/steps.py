"""A recorded program of an export, carried out: networks, and the entropy coder's steps between them; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..codec.calls import CoderCalls
from ..codec.checksums import step_checksum
from ..codec.coder import TableCoder
from ..codec.stopwatch import Stopwatch
from ..errors import DistillkitError
from .runtimes import Network

Step = dict[str, Any]


@final
class EntropyModel:
    """One entropy model's tables.

    Args:
        name: in the codec.
        number: in the export.
        tables: of the export.
    """

    def __init__(self, name: str, number: int, tables: Mapping[str, NDArray[Any]]) -> None:
        self.name = name
        self.cdf, self.lengths, self.offsets = (tables[f"{number}.{key}"] for key in ("cdf", "cdf_length", "offset"))
        self.coder = TableCoder(self.cdf, self.lengths, self.offsets, name)
        self.edges, self.bound, self.medians = (
            tables[f"{number}.{key}"].astype(np.float64) if f"{number}.{key}" in tables else np.zeros(0)
            for key in ("scale_table", "scale_bound", "medians")
        )


@final
class Steps:
    """The programs of an export, for one picture, and the hash of all that was coded. Values are in float64.

    Args:
        models: the entropy models, in the order of their numbers.
        networks: by name.
        substreams: that are decoded.
    """

    def __init__(
        self, models: list[EntropyModel], networks: Mapping[str, Network], substreams: tuple[bytes, ...] = ()
    ) -> None:
        self._models, self._networks, self._substreams = models, networks, substreams
        self._calls = CoderCalls(Stopwatch())
        self._coders: dict[int, Any] = {}  # of the substreams that a codec codes by calling the coder itself
        self._written: dict[int, bytes] = {}
        self._checksums: dict[str, int] = {}
        self._kinds: dict[str, Callable[..., NDArray[Any]]] = {
            "edge": self._edge,
            "table": self._table,
            "code": self._code,
            "decode": self._decode,
            "code_channels": self._code_channels,
            "decode_channels": self._decode_channels,
            "put": self._put,
            "take": self._take,
        }

    def follow(self, steps: list[Step], x: NDArray[Any], before_last: Callable[[], object] = int) -> NDArray[Any]:
        """Return the result of a program.

        Args:
            steps: of the program.
            x: its input.
            before_last: is called before the last network is run.

        Raises:
            BitstreamError: the substreams are not what these steps encode.
        """
        try:
            return self._followed(steps, x, before_last)
        except (KeyError, IndexError, TypeError) as error:
            raise DistillkitError(
                f"export: expected the steps of a program, got damaged ones ({error!r}); export the model again."
            ) from error

    def _followed(self, steps: list[Step], x: NDArray[Any], before_last: Callable[[], object]) -> NDArray[Any]:
        values = {"x": x}
        last = max(place for place, step in enumerate(steps) if "run" in step)
        for place, step in enumerate(steps):
            if "result" in step:
                return values[step["result"]]
            given = [values[name] for name in step["in"]]
            if "run" in step:
                if place == last:
                    before_last()
                found = self._networks[step["run"]](given)
            else:
                value = self._kinds[step["do"]](step, **dict(zip(step["as"], given, strict=True)))
                found = [value.reshape(-1) if step["flat"] else value]
            values.update(zip(step["out"], found, strict=True))
            for name in step["drop"]:
                del values[name]
        raise DistillkitError("export: expected a program with a result, got none; export the model again.")

    def checksums(self, direction: str) -> dict[str, int]:
        """Return the checksum of each entropy model, as distillkit makes them, of `encode` or `decode`."""
        return self._checksums | self._calls.checksums(direction)

    def written(self, number: int) -> bytes:
        """Return a substream that was encoded."""
        return self._written[number] if number in self._written else self._coders[number].flush()

    def _edge(self, step: Step, values: NDArray[Any]) -> NDArray[Any]:
        return values.astype(np.float64 if step["is_exact"] else np.float32)

    def _table(self, step: Step, scales: NDArray[Any]) -> NDArray[Any]:
        model = self._models[step["model"]]
        return np.searchsorted(model.edges[:-1], np.maximum(scales, model.bound)).astype(np.int32)

    def _code(self, step: Step, values: Any, indexes: Any, means: Any = 0.0) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):
            symbols = np.rint(values.astype(np.float64) - means).astype(np.int32)
        coder = self._models[step["model"]].coder
        self._written[step["to"]] = coder.encode([(symbols.reshape(-1), np.ascontiguousarray(indexes.reshape(-1)))])
        return self._seen(step, indexes, symbols + means)

    def _decode(self, step: Step, indexes: Any, means: Any = 0.0) -> NDArray[Any]:
        decoder = self._models[step["model"]].coder.decoder(self._substreams[step["of"]])
        symbols = decoder.decode(np.ascontiguousarray(indexes.reshape(-1))).reshape(indexes.shape)
        decoder.finish()
        return self._seen(step, indexes, symbols + means)

    def _code_channels(self, step: Step, values: Any) -> NDArray[Any]:
        return self._code(step, values, *self._channels(step, values.shape))

    def _decode_channels(self, step: Step, grid: NDArray[Any]) -> NDArray[Any]:
        shape = (1, step["channels"], step["rows"] * grid.shape[2], step["columns"] * grid.shape[3])
        return self._decode(step, *self._channels(step, shape))

    def _put(self, step: Step, symbols: Any, indexes: Any) -> NDArray[Any]:
        if step["to"] not in self._coders:
            self._coders[step["to"]] = self._calls.made("BufferedRansEncoder")
        with np.errstate(invalid="ignore"):
            flat = symbols.astype(np.int32).reshape(-1), indexes.reshape(-1)
        model = self._models[step["model"]]
        self._coders[step["to"]].encode_with_indexes(*flat, model.cdf, model.lengths, model.offsets)
        return symbols

    def _take(self, step: Step, indexes: Any) -> NDArray[Any]:
        if step["of"] not in self._coders:
            self._coders[step["of"]] = self._calls.made("RansDecoder")
            self._coders[step["of"]].set_stream(self._substreams[step["of"]])
        model = self._models[step["model"]]
        tables = model.cdf, model.lengths, model.offsets
        symbols = self._coders[step["of"]].decode_stream(indexes.reshape(-1), *tables)
        return np.array(symbols, np.float64).reshape(indexes.shape)

    def _channels(self, step: Step, shape: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        channels = np.arange(shape[1], dtype=np.int32).reshape(1, -1, 1, 1)
        return np.broadcast_to(channels, shape), self._models[step["model"]].medians.reshape(1, -1, 1, 1)

    def _seen(self, step: Step, indexes: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
        """Take values into the hash, and return them as distillkit hands them on."""
        name = self._models[step["model"]].name
        with np.errstate(all="ignore"):  # a forged file's values may be too large, or no numbers at all
            fixed = np.rint(values * 256).astype(np.int32)
        self._checksums[name] = step_checksum(indexes, fixed, self._checksums.get(name, 0))
        values = values.astype(np.float64)
        return values.astype(np.float32).astype(np.float64) if step["rounds"] else values
