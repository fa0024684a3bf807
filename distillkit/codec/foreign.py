"""Codecs whose coding cannot be replaced: their own is used, as safely as possible."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..errors import BitstreamError
from ..model.adapters import CodecAdapter, CompressedLatents
from ..model.conditioned import at_quality
from .bitstream import CompressedImage
from .stopwatch import Stopwatch


@final
class ForeignCodec:
    """A codec that uses its own coder, in float32.

    Its files have no entropy hash: the CRC finds damage, but a file that was forged with care reaches the codec's own
    decoder, and a device that computes other entropy parameters gives a wrong picture.

    Attributes:
        is_unsafe: as given.

    Args:
        adapter: the codec; its module is put into eval mode.
        unsafe: whether it holds entropy models of CompressAI's kind, whose decoder reads past the end of forged bytes.
        trusted: decode with it all the same.
        stopwatch: counts its time.
    """

    def __init__(self, adapter: CodecAdapter, unsafe: bool, trusted: bool, stopwatch: Stopwatch) -> None:
        self.adapter = adapter
        self.is_unsafe = unsafe
        self._refuse = unsafe and not trusted
        self._stopwatch = stopwatch
        self.takes_channels_last = False  # its module may take views of images

    # no_grad, not inference_mode: a module that caches a tensor in its forward pass must still train afterwards.
    @torch.no_grad()
    def compress(self, images: Tensor, quality: float | None = None) -> tuple[CompressedLatents, dict[str, int]]:
        """Return the latents of `images`, shape (B, C, H, W), range [0, 1], and no checksums."""
        self.adapter.module.eval()
        with torch.autocast(images.device.type, enabled=False), self._stopwatch.time("coder"):
            return at_quality(self.adapter, quality).compress(images), {}

    @torch.no_grad()
    def decompress(self, latents: CompressedLatents, image: CompressedImage) -> Tensor:
        """Return the reconstruction, shape (1, C, H, W).

        Args:
            latents: of one image, as in its file.
            image: the file.

        Raises:
            BitstreamError: the codec cannot decode them, or must not.
        """
        name = type(self.adapter.module).__name__
        if self._refuse:
            raise BitstreamError(
                f"codec {name}: expected one whose coding distillkit can replace, but it calls CompressAI's coder by "
                "itself, which a forged file can crash; if you made the file yourself, pass `--trusted`, or "
                "ImageCodec(trusted=True)."
            )
        image.check_decoded({})
        self.adapter.module.eval()
        device = next((tensor.device for tensor in self.adapter.module.parameters()), torch.device("cpu"))
        try:
            with torch.autocast(device.type, enabled=False), self._stopwatch.time("coder"):
                return at_quality(self.adapter, image.quality).decompress(latents)
        except Exception as error:  # whatever the codec's decoder raises on bytes that it did not write
            raise BitstreamError(
                f"compressed file: codec {name} cannot decode it, got {type(error).__name__}: {error}; "
                "it is damaged or forged, or the codec's decompress is at fault."
            ) from error
