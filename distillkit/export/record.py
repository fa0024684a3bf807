"""A codec's coding, recorded as it runs: a program of networks and of the entropy coder's steps between them.

Nothing is guessed from the names of modules: what `compress` and `decompress` do to a picture of any size is traced by
`torch.export`, with one operator for each step of the coder. Whatever a codec computes is in its program.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ..codec.exact import MakesTensorsOf, find_transforms, use_exact
from ..codec.stand_ins import StandIns
from ..codec.tables import has_usual_indexes, is_entropy_model
from ..model.adapters import CodecAdapter, CompressedLatents
from ..model.copies import copy_codec
from . import operators
from .caches import Caches
from .recorder import Decoder, Encoder, RecordedTables, Recorder, Substream
from .values import values_as_numbers


@final
@dataclass(frozen=True)
class Program:
    """A traced pass.

    Attributes:
        graph: its operators; the first output is the result, the others keep the coder's steps in it.
        substreams: for encoding: the number of each of the file's substreams, in the file's order.
    """

    graph: torch.export.ExportedProgram
    substreams: list[int]


@final
class Recording:
    """A copy of a codec that is traced, not run.

    Args:
        adapter: the codec, its tables up to date; it is left as it is.
        shape: from rows and columns, in strides, to the codec's description of its latents' sizes.
    """

    def __init__(self, adapter: CodecAdapter, shape: Callable[[Any, Any], Any]) -> None:
        self._shape = shape
        self._recorder = Recorder({})
        self._stand_ins = StandIns(self)
        self.adapter = copy_codec(adapter, self._stand_ins.of(adapter.module))
        module = self.adapter.module.cpu().eval().requires_grad_(False)
        names = {name: model for name, model in module.named_modules() if hasattr(model, "_quantized_cdf")}
        self._recorder.models |= names
        roles = find_transforms(self.adapter)
        transforms = use_exact(
            module, roles, torch.float64, lambda name, network: _In32(network, self._recorder, name != "g_s")
        )
        _unmask(module)
        models: list[Any] = list(names.values())
        for number, model in enumerate(models):
            if has_usual_indexes(model):
                model.build_indexes = self._table_of(number)
            if not is_entropy_model(model):
                continue  # it calls the coder
            tables = RecordedTables(self._recorder, number, not _has_exact_context(module, model))
            if hasattr(model, "_get_medians"):
                model.compress, model.decompress = tables.compress_channels, tables.decompress_channels
            else:
                model.compress, model.decompress = tables.compress, tables.decompress
        self._stand_ins.put_into(module)
        self._makes_exact = MakesTensorsOf(torch.float64, transforms)
        self._caches = Caches(module)

    @property
    def models(self) -> dict[str, Any]:
        """The entropy models, by name."""
        return self._recorder.models

    def made(self, kind: str) -> Any:
        """Return a recorded coder, see `StandIns`."""
        return Decoder(self._recorder) if kind == "RansDecoder" else Encoder(self._recorder, "Buffered" in kind)

    def _table_of(self, number: int) -> Callable[[Tensor], Tensor]:
        return lambda scales: self._recorder.keep_call(operators.table, scales, number)

    @torch.no_grad()
    def num_groups(self, rows: int, columns: int) -> int:
        """Return how many groups of symbols `compress` codes of a picture of this many strides; it is run for this."""
        stride = self.adapter.stride
        self._recorder.reset()
        with self._stand_ins.answering(), self._makes_exact, values_as_numbers():
            self.adapter.compress(torch.zeros(1, self.adapter.samples.channels, rows * stride, columns * stride))
        return self._recorder.num_groups

    def encoding(self, largest: int) -> Program:
        """Return the program that compresses a picture, shape (1, C, H, W)."""
        substreams: list[int] = []

        def run(images: Tensor) -> Tensor:
            latents = self.adapter.compress(images)
            written: Any = latents.strings
            substreams[:] = [strings[0].number for strings in written]
            return self._recorder.kept[0]

        stride = self.adapter.stride
        example = torch.rand(1, self.adapter.samples.channels, 2 * stride, 3 * stride)
        return Program(self._trace(run, example, stride, largest), substreams)

    def decoding(self, num_substreams: int, largest: int) -> Program:
        """Return the program that gives a picture, shape (1, C, H, W), from a map of its size in strides."""

        def run(grid: Tensor) -> Tensor:
            self._recorder.grid = grid
            strings: list[list[bytes]] = [[Substream.of(number)] for number in range(num_substreams)]
            return self.adapter.decompress(CompressedLatents(strings, self._shape(grid.shape[2], grid.shape[3])))

        return Program(self._trace(run, torch.zeros(1, 1, 2, 3), 1, largest), [])

    def _trace(self, run: Callable[[Tensor], Tensor], example: Tensor, multiple: int, largest: int) -> Any:
        recorder = self._recorder

        class Pass(nn.Module):
            def __init__(self, module: nn.Module) -> None:
                super().__init__()
                self.module = module

            def forward(self, x: Tensor) -> list[Tensor]:
                recorder.reset()
                return [run(x), *recorder.kept]

        height, width = (torch.export.Dim(axis, min=1, max=largest) for axis in ("height", "width"))
        sizes = {2: multiple * height, 3: multiple * width} if multiple > 1 else {2: height, 3: width}
        self._caches.restore()
        with torch.no_grad(), self._stand_ins.answering(), self._makes_exact, values_as_numbers():
            traced = torch.export.export(
                Pass(self.adapter.module), (example,), dynamic_shapes=(sizes,), strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )  # fmt: skip
        _check_sizes(traced, largest)
        return traced


def _check_sizes(traced: torch.export.ExportedProgram, largest: int) -> None:
    """Check that a program is that of pictures of two strides a side and more; smaller ones are tried on real bytes.

    Raises:
        ValueError: for some the codec does something else.
    """
    ranges = traced.range_constraints
    conditions: list[Any] = [
        node.args[0].meta["val"].node.expr for node in traced.graph.nodes if "_assert_scalar" in str(node.target)
    ]
    for low, high in ((int(r.lower), int(r.upper)) for symbol, r in ranges.items() if symbol.is_Symbol):
        if low > 2 or high < largest:
            sides = f"with a side of {low}" if low == high else f"of sides from {low} to {high}"
            raise ValueError(f"it does something else for pictures {sides} strides than for others")
    for sides in itertools.product((2, 3, 4, 5, 7, 8, 16, 33, 100, largest), repeat=2):
        for condition in conditions:
            symbols = sorted(condition.free_symbols, key=str)
            if len(symbols) > 2 or condition.subs(dict(zip(symbols, sides, strict=False))) == False:  # noqa: E712 - of sympy
                raise ValueError(f"it does something else for pictures of {sides[0]}x{sides[1]} strides")


@final
class _In32(nn.Module):
    """A transform in float32, between tensors of another type."""

    def __init__(self, network: nn.Module, recorder: Recorder, returns_exact: bool) -> None:
        super().__init__()
        self.network, self._recorder, self._returns_exact = network, recorder, returns_exact

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(self._edge(value, False) for value in args)
        out = self.network(*args, **{name: self._edge(value, False) for name, value in kwargs.items()})
        if not self._returns_exact:
            return out
        return tuple(self._edge(v, True) for v in out) if isinstance(out, (tuple, list)) else self._edge(out, True)

    def _edge(self, value: Any, is_exact: bool) -> Any:
        is_real = isinstance(value, Tensor) and value.is_floating_point()
        return self._recorder.keep_call(operators.edge, value, is_exact) if is_real else value


def _unmask(module: nn.Module) -> None:
    """Multiply the masks of masked convolutions into their weights, which they do themselves when they run."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            mask = getattr(layer, "mask", None)
            if isinstance(layer, nn.Conv2d) and isinstance(mask, Tensor) and mask.shape == layer.weight.shape:
                layer.weight.data *= mask
                plain = copy.copy(layer)
                plain.__class__ = nn.Conv2d
                setattr(parent, name, plain)


def _has_exact_context(module: nn.Module, model: nn.Module) -> bool:
    """Return whether `codec.checkerboard` codes a model's symbols: its context sees values that are not rounded."""
    owners = [part for part in module.modules() if type(part).__name__ == "CheckerboardLatentCodec"]
    return any(model in owner.modules() for owner in owners)
