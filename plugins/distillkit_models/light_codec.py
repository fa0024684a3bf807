"""A codec with one trained transform, and the latents that its files hold."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

import distillkit

MAX_BYTES = 2**30  #: of latents that are kept in memory


def light_codec(
    codec: distillkit.CodecAdapter, trainable: tuple[str, ...], reads: tuple[str, ...], latents: Latents | None
) -> distillkit.CodecAdapter:
    """Return a trained codec with one new transform; the rest, the coder's tables too, is unchanged.

    Args:
        codec: with the new transform.
        trainable: patterns of the parameters that are trained.
        reads: fingerprints of other models whose files it decodes.
        latents: if given, `forward` is the synthesis of the latents that it gives, and computes no rate.
    """
    many = isinstance(codec, distillkit.ConditionedAdapter)
    return (LightCodecOfManyRates if many else LightCodec)(codec, trainable, reads, latents)


class _Light:
    """What both kinds share: one transform is trained, and the tables are kept."""

    def __init__(self, codec: Any, trainable: tuple[str, ...], reads: tuple[str, ...], latents: Latents | None) -> None:
        self._codec, self.module, self.stride, self.samples = codec, codec.module, codec.stride, codec.samples
        self.trainable, self.reads = trainable, reads
        self._latents = latents

    def update(self) -> None:
        """Keep the tables: files that were written with them must be readable."""

    def _synthesised(self, latents: Tensor) -> distillkit.CodecOutput:
        certain = latents.new_ones(len(latents), 1, 1, 1)  # the rate is the teacher's, whatever is trained
        return distillkit.CodecOutput(self.module.g_s(latents), {"y": certain})


@final
class LightCodec(_Light, distillkit.CodecAdapter):
    """A light codec of one rate."""

    @override
    def forward(self, images: Tensor) -> distillkit.CodecOutput:
        if self._latents is None:
            return self._codec.forward(images)
        return self._synthesised(self._latents(images))

    @override
    def compress(self, images: Tensor) -> distillkit.CompressedLatents:
        return self._codec.compress(images)

    @override
    def decompress(self, latents: distillkit.CompressedLatents) -> Tensor:
        return self._codec.decompress(latents)


@final
class LightCodecOfManyRates(_Light, distillkit.ConditionedAdapter):
    """A light codec of many rates: its gains are the trained codec's."""

    def __init__(self, codec: Any, trainable: tuple[str, ...], reads: tuple[str, ...], latents: Latents | None) -> None:
        super().__init__(codec, trainable, reads, latents)
        self.mixes_qualities = codec.mixes_qualities

    @override
    def forward(self, images: Tensor, quality: Tensor | float = distillkit.MIDDLE) -> distillkit.CodecOutput:
        if self._latents is None:
            return self._codec.forward(images, quality)
        with _without_gains(self._codec):  # the latents that are given have been divided by them
            return self._synthesised(self._latents(images, quality))

    @override
    def compress(self, images: Tensor, quality: float = distillkit.MIDDLE) -> distillkit.CompressedLatents:
        return self._codec.compress(images, quality)

    @override
    def decompress(self, latents: distillkit.CompressedLatents, quality: float = distillkit.MIDDLE) -> Tensor:
        return self._codec.decompress(latents, quality)


@contextmanager
def _without_gains(codec: distillkit.CodecAdapter) -> Generator[None]:
    units = codec.gain_units if isinstance(codec, distillkit.GainedCodec) else None
    before = units.quality if units else None
    if units:
        units.quality = None
    try:
        yield
    finally:
        if units:
            units.quality = before


class _Caught(Exception):  # noqa: N818 - control flow, not an error
    pass


@final
class _Catch(nn.Module):
    """Takes the place of the synthesis, keeps its input, and ends the codec's run."""

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
        if isinstance(codec, distillkit.GainedCodec):
            codec.attach("g_s", self._catch)
        codec.module.eval().requires_grad_(False)
        self._kept: dict[bytes, Tensor] = {}
        self._num_bytes = 0
        shape = (1, codec.samples.channels, 2 * codec.stride, 2 * codec.stride)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        quality = torch.tensor([0.5]) if isinstance(codec, distillkit.ConditionedAdapter) else None
        passes = [self._passed(images, coded, quality) for coded in (False, True)]
        self._forward_is_exact = bool(((passes[0] - passes[1]).abs() > 1e-3).float().mean() < 0.01)

    def __deepcopy__(self, _: Any) -> Latents:
        return self

    def __call__(self, images: Tensor, quality: Tensor | float | None = None) -> Tensor:
        """Return the latents as synthesis takes them, shape (B, M, h, w), of images of shape (B, C, H, W) in [0, 1].

        Args:
            images: the crops.
            quality: in [0, 1], of all or of each, shape (B,), for a codec of many rates; None for one of a single rate.
        """
        qualities = None if quality is None else torch.as_tensor(quality, dtype=torch.float32).cpu().expand(len(images))
        marks = [b""] * len(images) if qualities is None else [each.numpy().tobytes() for each in qualities]
        keys = [_key(image, mark) for image, mark in zip(images, marks, strict=True)]
        new = [index for index, key in enumerate(keys) if key not in self._kept]
        fresh: dict[bytes, Tensor] = {}
        if new:
            own = None if qualities is None else qualities[new].to(images.device)
            passed = self._passed(images[new], not self._forward_is_exact, own)
            fresh = {keys[index]: latent for index, latent in zip(new, passed, strict=True)}
        for key, latent in fresh.items():
            if self._num_bytes < MAX_BYTES:
                self._kept[key] = latent.clone()
                self._num_bytes += latent.nbytes
        return torch.stack([fresh[key] if key in fresh else self._kept[key] for key in keys])

    @torch.no_grad()
    def _passed(self, images: Tensor, coded: bool, quality: Tensor | None = None) -> Tensor:
        """Return the latents of images; one by one where they cannot be run together."""
        self._codec.module.to(images.device)
        if quality is None:
            return self._caught(self._codec, images, coded)
        codec: Any = self._codec
        if codec.mixes_qualities and not coded:
            return self._caught(codec, images, coded, quality)
        return torch.cat([self._caught(codec, images[i : i + 1], coded, float(q)) for i, q in enumerate(quality)])

    def _caught(self, codec: Any, images: Tensor, coded: bool, *quality: Any) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            try:
                if coded:
                    codec.decompress(codec.compress(images, *quality), *quality)
                else:
                    codec.forward(images, *quality)
            except _Caught:
                return self._catch.latents.float()
        raise distillkit.PairError(
            "models.light: expected a codec that synthesises by g_s, got one that does not; take another teacher."
        )


def _key(image: Tensor, quality: bytes) -> bytes:
    return hashlib.blake2b(image.cpu().contiguous().numpy().tobytes() + quality, digest_size=16).digest()
