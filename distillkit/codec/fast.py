"""A copy of a codec that codes fast: same weights, same substreams, other arithmetic.

What the entropy coder's tables are chosen by (hyper-synthesis, context, entropy parameters) is computed in float64.
There two devices, thread counts or algorithms differ by some 1e-13, too little to choose another table but in one
picture of a hundred thousand; in float32 a 1x1 convolution already differs between one thread and two, and a picture
has 300,000 scales to be put into tables. These networks work at 1/16 of the resolution; `winograd` wins back half of
what float64 costs.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from ..adapters import CodecAdapter, CompressedLatents
from ..errors import PairError
from ..precision import bf16_is_fast
from .bitstream import CompressedImage
from .checkerboard import code_checkerboards
from .stopwatch import Stopwatch
from .tables import EntropyWatch, is_entropy_model
from .tiles import TILE_PIXELS
from .transforms import Transform
from .wavefront import code_serial_contexts
from .winograd import use_winograd

Precision = Literal["auto", "bf16", "fp32"]


@final
class FastCodec:
    """A copy of a codec of CompressAI's API, for coding only.

    Attributes:
        adapter: the codec's adapter, copied with its module.
        takes_channels_last: whether images may come in that memory format, for they meet a transform first.

    Args:
        adapter: has entropy models of CompressAI's kind in its module; it is left as it is.
        precision: of the modules named `g_a` and `g_s`; "auto" is bf16 on devices that compute in it.
        stopwatch: counts where the time goes.

    Raises:
        PairError: the tables are not up to date, or the module cannot be copied.
    """

    def __init__(self, adapter: CodecAdapter, precision: Precision, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._expected: CompressedImage | None = None
        self._tiled: list[Transform] = []
        try:
            self.adapter = copy.deepcopy(adapter)
        except (RuntimeError, TypeError) as error:
            raise PairError(
                f"codec {type(adapter.module).__name__}: expected a module that can be copied, got {error}; "
                "detach the tensors that it keeps."
            ) from None
        module = self.adapter.module.eval().requires_grad_(False)
        device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
        self._device = device
        bf16 = precision == "bf16" or (precision == "auto" and bf16_is_fast(device))
        exact = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        dtypes = {
            "g_a": (torch.bfloat16 if bf16 else torch.float32, exact),
            "g_s": (torch.bfloat16 if bf16 else torch.float32, torch.float32),
            "h_a": (torch.float32, exact),  # the encoder's alone: what it gives is rounded and coded
        }
        transforms: dict[nn.Module, Transform] = {}
        places = [
            (parent, name, child)
            for parent in module.modules()
            for name, child in parent.named_children()
            if name in dtypes
        ]
        for parent, name, _ in places:
            setattr(parent, name, nn.Identity())
        module.to(exact)
        if exact == torch.float64 and device.type == "cpu":
            use_winograd(module)
        for part in module.modules():
            if any(True for _ in part.parameters(recurse=False)):
                part.register_forward_pre_hook(lambda _, args: tuple(_to(exact, value) for value in args))
        for parent, name, child in places:
            if child not in transforms:
                transforms[child] = Transform(child, *dtypes[name], stopwatch, 0.5 if name == "g_s" else None)
                if name != "h_a":
                    self._tiled.append(transforms[child])
                if name == "g_s":  # nothing is synthesised from latents that are not what was encoded
                    transforms[child].register_forward_pre_hook(lambda *_: self._check())
            setattr(parent, name, transforms[child])
        self.takes_channels_last = isinstance(getattr(module, "g_a", None), Transform)
        self._entropy = EntropyWatch(module, stopwatch)
        code_serial_contexts(module, self._entropy)
        if device.type == "cpu":
            _keep_freed_memory()
        code_checkerboards(module, self._entropy)

    @torch.no_grad()
    def compress(self, images: Tensor) -> tuple[CompressedLatents, dict[str, int]]:
        """Return the latents of `images`, shape (B, 3, H, W), range [0, 1], and the entropy models' checksums."""
        self._entropy.reset()
        self._cut(*images.shape[2:])
        with torch.autocast(images.device.type, enabled=False), self._stopwatch.time("entropy network"):
            return self.adapter.compress(images), self._entropy.checksums()

    @torch.no_grad()
    def decompress(self, latents: CompressedLatents, image: CompressedImage) -> Tensor:
        """Return the reconstruction, shape (1, 3, H, W).

        Args:
            latents: of one image, as they stand in its file.
            image: the file; its entropy hash is checked before synthesis.

        Raises:
            BitstreamError: the latents decode to something else than was encoded.
        """
        self._entropy.reset()
        self._expected = image
        self._cut(image.height, image.width)
        try:
            with torch.autocast(self._device.type, enabled=False), self._stopwatch.time("entropy network"):
                x_hat = self.adapter.decompress(latents)
            self._check()  # again, for codecs without a module of that name
        finally:
            self._expected = None
        return x_hat

    def _cut(self, height: int, width: int) -> None:
        """Have the transforms of a large picture computed in tiles."""
        stride = self.adapter.stride
        strides = (-(-height // stride), -(-width // stride)) if height * width > TILE_PIXELS**2 else None
        for transform in self._tiled:
            transform.strides, transform.tile_strides = strides, max(TILE_PIXELS // stride, 1)

    def coded_all(self, latents: CompressedLatents) -> bool:
        """Return whether every substream that was just compressed went through the coder here."""
        written = {id(string) for string in self._entropy.written}
        return all(id(string) in written for strings in latents.strings for string in strings)

    def _check(self) -> None:
        if self._expected is not None:
            self._expected.check_decoded(self._entropy.checksums())


def can_be_fast(adapter: CodecAdapter) -> bool:
    """Return whether the codec has entropy models whose coding can be replaced."""
    return any(is_entropy_model(module) for module in adapter.module.modules())


def _keep_freed_memory() -> None:
    """Have glibc keep up to 64 MB of freed memory; elsewhere this does nothing.

    Features take megabytes, which it would return to the system after each layer, and the pages of the next layer's
    would be zeroed and mapped anew: a third of the time of a transform. It raises its thresholds by itself, to the size
    of the largest block that it returned, 32 MB at most.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)


def _to(dtype: torch.dtype, value: Any) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
