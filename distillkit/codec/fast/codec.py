"""A copy of a codec that codes fast: same weights, same substreams, other arithmetic.

The networks that choose the entropy coder's tables (hyper-synthesis, context, entropy parameters) compute in float64.
There two devices, thread counts or algorithms differ by some 1e-13, which chooses another table in about one picture of
a hundred thousand; in float32 a 1x1 convolution already differs between one thread and two, and a picture has 300,000
scales to be put into tables. These networks work at 1/16 of the resolution; `winograd` wins back half of what float64
costs.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Literal, final

import torch
from torch import Tensor, nn

from ...errors import BitstreamError, DistillkitError, PairError
from ...model.adapters import CodecAdapter, CompressedLatents
from ...model.conditioned import at_quality
from ...model.copies import copy_codec
from ...model.precision import bf16_is_fast
from ..bitstream import CompressedImage
from ..calls import CoderCalls
from ..exact import MakesTensorsOf, find_transforms, use_exact
from ..stand_ins import StandIns, calls_coder
from ..stopwatch import Stopwatch
from ..tables import EntropyWatch, is_entropy_model
from .checkerboard import code_checkerboards
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
        tiled: the transforms that are run in tiles on large pictures.
        takes_channels_last: whether images may come in that memory format, for they meet a transform first.

    Args:
        adapter: has entropy models of CompressAI's kind in its module; it is not changed.
        precision: of the analysis and synthesis; "auto" is bf16 on devices that are faster in it, for
            samples of up to 8 bits.
        stopwatch: counts where the time goes.
        exact: of all that chooses the coder's tables; float32 for networks that cannot run in float64.

    Raises:
        PairError: the tables are not up to date, or the module cannot be copied.
    """

    def __init__(
        self,
        adapter: CodecAdapter,
        precision: Precision,
        stopwatch: Stopwatch,
        exact: torch.dtype = torch.float64,
    ) -> None:
        self._stopwatch = stopwatch
        self._expected: CompressedImage | None = None
        self.tiled: list[Transform] = []
        self._calls = CoderCalls(stopwatch)
        self._stand_ins = StandIns(self._calls)
        try:
            self.adapter = copy_codec(adapter, self._stand_ins.of(adapter.module))
        except (RuntimeError, TypeError) as error:
            raise PairError(
                f"codec {type(adapter.module).__name__}: expected a module that can be copied, got {error}; "
                "detach the tensors that it keeps."
            ) from None
        module = self.adapter.module.eval().requires_grad_(False)
        device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
        self._device = device
        may_round = precision == "auto" and adapter.samples.bits <= 8
        bf16 = precision == "bf16" or (may_round and bf16_is_fast(device))
        exact = torch.float32 if device.type == "mps" else exact  # Apple's GPUs have no float64
        dtypes = {
            "g_a": (torch.bfloat16 if bf16 else torch.float32, exact),
            "g_s": (torch.bfloat16 if bf16 else torch.float32, torch.float32),
            "h_a": (torch.float32, exact),
        }

        def transform(name: str, network: nn.Module) -> Transform:
            made = Transform(network, *dtypes[name], stopwatch, 0.5 if name == "g_s" else None)
            if name != "h_a":
                self.tiled.append(made)
            if name == "g_s":  # nothing is synthesised from latents that are not what was encoded
                made.register_forward_pre_hook(lambda *_: self._check())
            return made

        winograd = exact == torch.float64 and device.type == "cpu"
        roles, children = find_transforms(self.adapter), list(module.children())
        transforms = use_exact(module, roles, exact, transform, use_winograd if winograd else id)
        self.takes_channels_last = any(roles.get(child) == "g_a" for child in children)
        self._entropy = EntropyWatch(module, stopwatch)
        self._stand_ins.put_into(module)
        self._makes_exact = MakesTensorsOf(exact, transforms)
        code_serial_contexts(module, self._entropy)
        if device.type == "cpu":
            _keep_freed_memory()
        code_checkerboards(module, self._entropy)

    @torch.no_grad()
    def compress(self, images: Tensor, quality: float | None = None) -> tuple[CompressedLatents, dict[str, int]]:
        """Return the latents of `images`, shape (B, C, H, W), range [0, 1], and the entropy models' checksums."""
        self._reset()
        self._cut(*images.shape[2:])
        with self._coding():
            latents = at_quality(self.adapter, quality).compress(images)
        return latents, self._entropy.checksums() | self._calls.checksums("encode")

    @torch.no_grad()
    def decompress(self, latents: CompressedLatents, image: CompressedImage) -> Tensor:
        """Return the reconstruction, shape (1, C, H, W).

        Args:
            latents: of one image, as in its file.
            image: the file; its entropy hash is checked before synthesis.

        Raises:
            BitstreamError: the latents decode to something else than was encoded.
        """
        self._reset()
        self._expected = image
        self._cut(image.height, image.width)
        try:
            with self._coding():
                x_hat = at_quality(self.adapter, image.quality).decompress(latents)
            self._check()  # again, for codecs without a module of that name
        except (DistillkitError, MemoryError):
            raise
        except Exception as error:  # of the codec's own code, on symbols that it did not write
            raise BitstreamError(
                f"compressed file: codec {type(self.adapter.module).__name__} cannot decode it, got "
                f"{type(error).__name__}: {error}; it is damaged or forged, or the codec's decompress is at fault."
            ) from error
        finally:
            self._expected = None
        return x_hat

    @torch.no_grad()
    def try_to_decode(self, latents: CompressedLatents, quality: float | None) -> None:
        """Decode latents that were just encoded, and let every error of the codec's own code through."""
        self._reset()
        with self._coding():
            at_quality(self.adapter, quality).decompress(latents)

    def _cut(self, height: int, width: int) -> None:
        """Have the transforms of a large picture computed in tiles."""
        stride = self.adapter.stride
        strides = (-(-height // stride), -(-width // stride)) if height * width > TILE_PIXELS**2 else None
        for transform in self.tiled:
            transform.strides, transform.tile_strides = strides, max(TILE_PIXELS // stride, 1)

    def coded_all(self, latents: CompressedLatents) -> bool:
        """Return whether every substream that was just compressed went through the coder here."""
        written = {*self._entropy.written, *self._calls.written}
        return all(string in written for strings in latents.strings for string in strings)

    @contextmanager
    def _coding(self) -> Generator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self._device.type, enabled=False))
            stack.enter_context(self._stopwatch.time("entropy network"))
            stack.enter_context(self._stand_ins.answering())
            stack.enter_context(self._makes_exact)
            yield

    def _reset(self) -> None:
        self._entropy.reset()
        self._calls.reset()

    def _check(self) -> None:
        if self._expected is not None:
            self._expected.check_decoded(self._entropy.checksums() | self._calls.checksums("decode"))


def can_be_fast(adapter: CodecAdapter) -> bool:
    """Return whether the codec may code by entropy models of CompressAI's kind or by CompressAI's coder."""
    return calls_coder(adapter.module) or any(is_entropy_model(module) for module in adapter.module.modules())


def _keep_freed_memory() -> None:
    """Have glibc keep up to 64 MB of freed memory; elsewhere this does nothing.

    Features take megabytes, which it would return to the system after each layer, and the pages of the next layer's
    would be zeroed and mapped again: a third of the time of a transform. It raises its thresholds by itself, to the
    size of the largest block that it returned, 32 MB at most.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)
