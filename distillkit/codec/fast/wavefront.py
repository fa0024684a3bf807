"""Serial-context codecs, decoded along a wavefront instead of position by position.

A context of p rows above and p columns to both sides makes position (i, j) depend on (i - 1, j + p) at the furthest, so
all positions of equal j + (p + 1) i can be coded at once: a latent of 32x48 and a 5x5 context take 3 * 31 + 48 = 141
steps instead of 1536. Encoder and decoder run the same steps on the same shapes, and so agree bit by bit.

Source: Minnen et al. (2018), arXiv 1809.02736, for the context; the order is the one of video coding's wavefronts.
Departure: symbols stand in the file in the order of the wavefront.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from ..coder import Step
from ..tables import EntropyTables, EntropyWatch, for_decoder, integers
from .context import MaskedContext, sees_only


@final
class Wavefront:
    """The coding of one latent by a serial context.

    Args:
        owner: has `context_prediction`, a convolution masked to what is above and to the left, `entropy_parameters`, of
            1x1 convolutions, and `gaussian_conditional`.
        tables: of its `gaussian_conditional`.
    """

    def __init__(self, owner: Any, tables: EntropyTables) -> None:
        self._context = MaskedContext(owner.context_prediction)
        self._parameters: nn.Module = owner.entropy_parameters
        self._model = owner.gaussian_conditional
        self._tables = tables

    def encode(self, y: Tensor, params: Tensor) -> tuple[bytes, Tensor]:
        """Return the bytes of y, shape (1, C, H, W), and what the decoder will see, of the same shape.

        Args:
            y: the latent.
            params: what the hyper-prior predicts, shape (1, P, H, W).
        """
        values = y[0].permute(1, 2, 0).flatten(0, 1)
        steps: list[Step] = []

        def code(positions: Tensor, indexes: Tensor, means: Tensor) -> Tensor:
            symbols = self._tables.round(values[positions], means)
            steps.append((integers(symbols), integers(indexes)))
            return symbols

        y_hat = self._run(params, y.shape[1], code)
        return self._tables.encode(steps), y_hat

    def decode(self, data: bytes, params: Tensor, channels: int) -> Tensor:
        """Return the latent, shape (1, C, H, W), as the encoder saw it.

        Raises:
            BitstreamError: the bytes are not what `encode` gives for these parameters.
        """
        with self._tables.decode(data) as decode:
            return self._run(params, channels, lambda _, indexes, means: decode(indexes))

    def _run(self, params: Tensor, channels: int, code: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        context, (height, width) = self._context, params.shape[2:]
        margin, padded_width = context.margin, context.padded_width(width)
        hyper = params[0].permute(1, 2, 0).flatten(0, 1).contiguous()
        padded = params.new_zeros((height + 2 * margin) * padded_width, channels)
        grid = torch.arange(height * width, device=params.device)
        rows, columns = grid // width, grid % width
        windows = context.windows(rows, columns, width)
        places = (rows + margin) * padded_width + columns + margin
        order = torch.argsort(columns + (margin + 1) * rows, stable=True)
        counts = torch.bincount(columns + (margin + 1) * rows).tolist()
        for positions in order.split([count for count in counts if count]):
            inputs = torch.cat((hyper[positions], context(padded, windows[positions])), 1)
            outputs = self._parameters(inputs.t()[None, :, None])[0, :, 0].t()
            scales, means = outputs.chunk(2, 1)
            indexes = self._model.build_indexes(scales)
            values = code(positions, indexes, means) + means
            self._tables.note(indexes, values)
            padded[places[positions]] = values
        inside = padded.reshape(height + 2 * margin, padded_width, channels)[margin:-margin, margin:-margin]
        return for_decoder(inside.permute(2, 0, 1)[None].contiguous())


def code_serial_contexts(module: nn.Module, entropy: EntropyWatch) -> None:
    """Replace the serial coding of every module inside that has one: CompressAI's joint prior and raster-scan codec."""
    for owner in list(module.modules()):
        tables = entropy.tables.get(getattr(owner, "gaussian_conditional", None))  # type: ignore[arg-type]
        context: Any = getattr(owner, "context_prediction", None)
        if tables is None or not hasattr(owner, "entropy_parameters") or not sees_only(context, _is_before):
            continue
        wavefront = Wavefront(owner, tables)
        if _is_joint(owner):
            _replace_joint(owner, wavefront)
        elif type(owner).__name__ == "RasterScanLatentCodec":
            _replace_raster_scan(owner, wavefront, context.in_channels)


def _is_joint(owner: Any) -> bool:
    """Return whether a codec codes as CompressAI's joint prior, and not by steps of another size."""
    if not (hasattr(owner, "_compress_ar") and hasattr(owner, "_decompress_ar")):
        return False
    expected = ["y_hat", "params", "height", "width", "kernel_size", "padding"]
    return list(inspect.signature(owner._compress_ar).parameters) == expected


def _replace_joint(owner: Any, wavefront: Wavefront) -> None:
    def compress(y: Tensor, params: Tensor, height: int, width: int, kernel_size: int, padding: int) -> bytes:
        inside = y[..., padding : padding + height, padding : padding + width]
        return wavefront.encode(inside, params)[0]

    def decompress(
        data: bytes, y_hat: Tensor, params: Tensor, height: int, width: int, kernel_size: int, padding: int
    ) -> None:
        inside = y_hat[..., padding : padding + height, padding : padding + width]
        inside.copy_(wavefront.decode(data, params, y_hat.shape[1]))

    owner._compress_ar, owner._decompress_ar = compress, decompress


def _replace_raster_scan(owner: Any, wavefront: Wavefront, channels: int) -> None:
    def compress(y: Tensor, ctx_params: Tensor) -> dict[str, Any]:
        coded = [wavefront.encode(y[i : i + 1], ctx_params[i : i + 1]) for i in range(len(y))]
        strings, y_hats = zip(*coded, strict=True)
        return {"strings": [list(strings)], "y_hat": torch.cat(y_hats), "shape": y.shape[2:4]}

    def decompress(strings: list[list[bytes]], shape: Any, ctx_params: Tensor, **_: Any) -> dict[str, Any]:
        (images,) = strings
        decoded = [wavefront.decode(image, ctx_params[i : i + 1], channels) for i, image in enumerate(images)]
        return {"y_hat": torch.cat(decoded)}

    owner.compress, owner.decompress = compress, decompress


def _is_before(row: int, column: int, margin: int) -> bool:
    return column + (margin + 1) * row < 0
