"""Checkerboard-context codecs: each half of the positions coded with nothing computed for the other.

Latents are cut into halves, (B, C, H, W / 2) each, as CompressAI cuts them. What the first layer of the parameter
network makes of the hyper-prior is computed for both at once; the context of the first half, which sees nothing, never.

Source: He et al. (2021), arXiv 2103.15306.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..tables import EntropyTables, EntropyWatch, integers
from .context import MaskedContext, sees_only


@final
class Checkerboard:
    """The coding of one latent by a checkerboard context.

    Args:
        owner: has `context_prediction`, a convolution masked to positions of the other colour, `entropy_parameters`,
            which takes context and hyper-prior in one tensor, and `anchor_parity`.
        model: its Gaussian entropy model.
        tables: of the model.
    """

    def __init__(self, owner: Any, model: Any, tables: EntropyTables) -> None:
        self._context = MaskedContext(owner.context_prediction)
        self._model, self._tables = model, tables
        self._odd = owner.anchor_parity == "odd"
        layers = list(owner.entropy_parameters) if type(owner.entropy_parameters) is nn.Sequential else []
        first: Any = layers[0] if layers else None
        self._split = type(first) is nn.Conv2d and first.kernel_size == (1, 1) and first.groups == 1
        self._split = self._split and (first.stride, first.padding) == ((1, 1), (0, 0))
        self._first = first
        self._parameters = nn.Sequential(*layers[1:]) if self._split else owner.entropy_parameters

    def encode(self, y: Tensor, hyper: Tensor) -> tuple[list[bytes], Tensor]:
        """Return the bytes of both halves of y, shape (1, C, H, W), and what the decoder will see, of the same shape.

        Args:
            y: the latent, H and W even.
            hyper: what the hyper-prior predicts, shape (1, P, H, W).
        """
        data: list[bytes] = []
        halves = self._halves(y)

        def code(turn: int, indexes: Tensor, means: Tensor) -> Tensor:
            symbols = self._tables.round(halves[turn], means)
            data.append(self._tables.encode([(integers(symbols), integers(indexes))]))
            return symbols

        return data, self._run(hyper, code)

    def decode(self, data: list[bytes], hyper: Tensor) -> Tensor:
        """Return the latent, shape (1, C, H, W), as the encoder saw it.

        Raises:
            BitstreamError: the bytes are not what `encode` gives for these parameters.
        """

        def code(turn: int, indexes: Tensor, means: Tensor) -> Tensor:
            with self._tables.decode(data[turn]) as decode:
                return decode(indexes)

        return self._run(hyper, code)

    def _run(self, hyper: Tensor, code: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        num_context = len(self._context.bias)
        known = hyper
        if self._split:
            known = F.conv2d(hyper, self._first.weight[:, num_context:], self._first.bias)
        sides = self._halves(known)
        context: Tensor | None = None
        values: list[Tensor] = []
        for turn, side in enumerate(sides):
            if self._split:
                merged = side if context is None else side + F.conv2d(context, self._first.weight[:, :num_context])
            else:
                unseen = side.new_zeros(1, num_context, *side.shape[2:]) if context is None else context
                merged = torch.cat((unseen, side), 1)
            scales, means = self._parameters(merged).chunk(2, 1)
            indexes = self._model.build_indexes(scales)
            values.append(code(turn, indexes, means) + means)
            self._tables.note(indexes, values[turn])
            if turn == 0:
                context = self._seen(values[0])
        return self._whole(*values)

    def _seen(self, anchors: Tensor) -> Tensor:
        """Return the context at the second half's positions, shape (1, outputs, H, W / 2), of the first's values."""
        _, channels, height, half = anchors.shape
        context, width = self._context, 2 * half
        rows = torch.arange(height, device=anchors.device)[:, None].expand(height, half)
        columns = 2 * torch.arange(half, device=anchors.device).expand(height, half) + (rows + self._odd) % 2
        padded = anchors.new_zeros((height + 2 * context.margin) * context.padded_width(width), channels)
        places = (rows + context.margin) * context.padded_width(width) + columns + context.margin
        padded[places.flatten()] = anchors[0].flatten(1).t().contiguous()
        others = columns + 1 - 2 * ((rows + self._odd) % 2)
        seen = context(padded, context.windows(rows.flatten(), others.flatten(), width))
        return seen.t().reshape(1, -1, height, half)

    def _halves(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions that are coded first, and the others, of shape (1, C, H, W / 2) each."""
        first = latent.new_empty(*latent.shape[:3], latent.shape[3] // 2)
        second = torch.empty_like(first)
        for row in (0, 1):
            first[:, :, row::2] = latent[:, :, row::2, (row + self._odd) % 2 :: 2]
            second[:, :, row::2] = latent[:, :, row::2, (row + self._odd + 1) % 2 :: 2]
        return first, second

    def _whole(self, first: Tensor, second: Tensor) -> Tensor:
        latent = first.new_empty(*first.shape[:3], 2 * first.shape[3])
        for row in (0, 1):
            latent[:, :, row::2, (row + self._odd) % 2 :: 2] = first[:, :, row::2]
            latent[:, :, row::2, (row + self._odd + 1) % 2 :: 2] = second[:, :, row::2]
        return latent


def code_checkerboards(module: nn.Module, entropy: EntropyWatch) -> None:
    """Replace the coding of every latent codec of CompressAI's checkerboard kind inside."""
    for owner in list(module.modules()):
        if type(owner).__name__ != "CheckerboardLatentCodec":
            continue
        inner: Any = owner.latent_codec["y"]  # type: ignore[index]
        model = getattr(inner, "gaussian_conditional", None)
        plain = type(getattr(inner, "entropy_parameters", None)) is nn.Identity
        plain = plain and getattr(inner, "chunks", None) == ("scales", "means")
        other_colour = sees_only(owner.context_prediction, lambda row, column, _: (row + column) % 2 == 1)
        if plain and other_colour and model in entropy.tables:
            _replace(owner, Checkerboard(owner, model, entropy.tables[model]))


def _replace(owner: Any, coding: Checkerboard) -> None:
    def compress(y: Tensor, side_params: Tensor) -> dict[str, Any]:
        coded = [coding.encode(y[i : i + 1], side_params[i : i + 1]) for i in range(len(y))]
        strings, y_hats = zip(*coded, strict=True)
        turns = [list(turn) for turn in zip(*strings, strict=True)]
        return {"strings": turns, "shape": y.shape[1:], "y_hat": torch.cat(y_hats)}

    def decompress(strings: list[list[bytes]], shape: Any, side_params: Tensor, **_: Any) -> dict[str, Any]:
        images = zip(*strings, strict=True)
        y_hats = [coding.decode(list(image), side_params[i : i + 1]) for i, image in enumerate(images)]
        return {"y_hat": torch.cat(y_hats)}

    owner.compress, owner.decompress = compress, decompress
