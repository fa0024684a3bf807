"""A codec of which one transform is trained, and the latents that its files hold."""

from __future__ import annotations

import hashlib
from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

import distillkit

MAX_BYTES = 2**30  #: of latents that are kept in memory


@final
class LightCodec(distillkit.CodecAdapter):
    """A trained codec of which one transform is new, and the rest, the coder's tables too, stays as it is.

    Args:
        codec: with the new transform.
        trainable: patterns of the parameters that are trained.
        reads: fingerprints of other models whose files it decodes.
        latents: if given, `forward` is the synthesis of the latents that it gives, and computes no rate.
    """

    def __init__(
        self,
        codec: distillkit.CodecAdapter,
        trainable: tuple[str, ...],
        reads: tuple[str, ...],
        latents: Latents | None,
    ) -> None:
        self._codec, self.module, self.stride = codec, codec.module, codec.stride
        self.trainable, self.reads = trainable, reads
        self._latents = latents

    @override
    def forward(self, images: Tensor) -> distillkit.CodecOutput:
        if self._latents is None:
            return self._codec.forward(images)
        synthesis: Any = self.module.g_s
        certain = images.new_ones(len(images), 1, 1, 1)  # the rate is the teacher's, whatever is trained
        return distillkit.CodecOutput(synthesis(self._latents(images)), {"y": certain})

    @override
    def compress(self, images: Tensor) -> distillkit.CompressedLatents:
        return self._codec.compress(images)

    @override
    def decompress(self, latents: distillkit.CompressedLatents) -> Tensor:
        return self._codec.decompress(latents)

    @override
    def update(self) -> None:
        """Keep the tables: files that were written with them are to be read."""


class _Caught(Exception):  # noqa: N818 - control flow, not an error
    pass


@final
class _Catch(nn.Module):
    """Stands where synthesis stood, keeps what it is given, and ends the codec's run."""

    latents: Tensor

    def forward(self, latents: Tensor) -> None:
        self.latents = latents
        raise _Caught


@final
class Latents:
    """The latents of crops as a decoder sees them, rounded; computed once, and kept in memory while there is room.

    A codec's forward pass gives them where it rounds as the decoder does. Where it does not, as with a serial context,
    the crops are compressed and decompressed, which is slow, but happens once for each.

    Args:
        codec: a trained one, which is taken over: its synthesis is removed.
    """

    def __init__(self, codec: distillkit.CodecAdapter) -> None:
        self._codec = codec
        self._catch = codec.module.g_s = _Catch()
        codec.module.eval().requires_grad_(False)
        self._kept: dict[bytes, Tensor] = {}
        self._num_bytes = 0
        images = torch.rand(1, 3, 2 * codec.stride, 2 * codec.stride, generator=torch.Generator().manual_seed(0))
        self._forward_is_exact = bool(
            ((self._passed(images, coded=False) - self._passed(images, coded=True)).abs() > 1e-3).float().mean() < 0.01
        )

    def __deepcopy__(self, _: Any) -> Latents:
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Return the latents, shape (B, M, h, w), of images of shape (B, 3, H, W), range [0, 1]."""
        keys = [hashlib.blake2b(image.cpu().contiguous().numpy().data, digest_size=16).digest() for image in images]
        new = [index for index, key in enumerate(keys) if key not in self._kept]
        fresh: dict[bytes, Tensor] = {}
        if new:
            passed = self._passed(images[new], coded=not self._forward_is_exact)
            fresh = {keys[index]: latent for index, latent in zip(new, passed, strict=True)}
        for key, latent in fresh.items():
            if self._num_bytes < MAX_BYTES:
                self._kept[key] = latent.clone()
                self._num_bytes += latent.nbytes
        return torch.stack([fresh[key] if key in fresh else self._kept[key] for key in keys])

    @torch.no_grad()
    def _passed(self, images: Tensor, coded: bool) -> Tensor:
        self._codec.module.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            try:
                if coded:
                    self._codec.decompress(self._codec.compress(images))
                else:
                    self._codec.forward(images)
            except _Caught:
                return self._catch.latents.float()
        raise distillkit.PairError(
            "models.light: expected a codec that synthesises by g_s, got one that does not; take another teacher."
        )
