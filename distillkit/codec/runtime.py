"""Whole images in, bytes out, and back: padding, the file, and the sizes of the latents."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import RLock
from typing import Any, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.samples import Samples
from ..errors import BitstreamError, DataError, PairError
from ..model.adapters import CodecAdapter, CompressedLatents, entropy_path
from ..model.adapters import fingerprint as fingerprint_of
from ..model.conditioned import MIDDLE, ConditionedAdapter, at_quality
from ..model.file import TrainedModel
from .bitstream import (
    NO_PATH,
    NUM_FINGERPRINT_BYTES,
    NUM_PATH_BYTES,
    CompressedImage,
    check_bounds,
    file_quality,
    read,
    write,
)
from .checksums import entropy_hash
from .choice import choose_coder
from .fast.codec import FastCodec, Precision
from .foreign import ForeignCodec
from .memory import CodingMemory
from .reading import MAX_PIXELS, check_size
from .shapes import grown
from .stopwatch import Stopwatch

#: Of every module that codes: several codecs may share one.
_LOCKS: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()


@final
class ImageCodec:
    """Codes any image of a codec's samples, mostly 8-bit RGB, to a file and back.

    A codec with entropy models of CompressAI's kind, or one that calls CompressAI's coder, is copied, and the copy is
    made fast and safe (`fast`): decoding gives what was encoded, with any number of torch's threads, or an error.
    Others are used as they are (`foreign`). Later changes of the weights are not seen: make a new one.

    Several threads of a program may use one codec. Their calls take turns, because a call already uses all of torch's
    threads; codecs of other modules run side by side.

    The sizes of the latents are never read from a file, because an entropy decoder with wrong sizes reads past the end
    of its input. They follow from the image's size by a rule that is learnt here from two blank images.

    Attributes:
        adapter: the codec.
        fingerprint: of its module.
        samples: of its pictures.
        stopwatch: where the time of the last `encode` or `decode`, by any thread, went.
        has_many_rates: whether `encode` takes a quality.
        is_fast: whether the coding was replaced.
        needs_trust: whether its files are decoded only with `trusted`, because it calls an unsafe coder that cannot be
            replaced.
        note: one line for the user on how it codes, or None.

    Args:
        model: a trained model, or a codec whose entropy tables are up to date (`codec.update()`).
        fingerprint: of its module, at least 16 hexadecimal digits, of which files carry the first 16; by default the
            model's, or computed.
        precision: of analysis and synthesis: `auto` is bf16 on devices that are faster in it, for samples of up to
            8 bits, else fp32. Files of one precision are decoded in another to the same latents, and pictures that
            differ by rounding.
        max_pixels: files of larger images are refused before anything is allocated.
        trusted: also use a decoder that forged files can crash; for files that you made yourself.

    Raises:
        PairError: the codec cannot compress a blank image, or its shape does not follow from the image's size.
    """

    def __init__(
        self,
        model: CodecAdapter | TrainedModel,
        fingerprint: str | None = None,
        *,
        precision: Precision = "auto",
        max_pixels: int = MAX_PIXELS,
        trusted: bool = False,
    ) -> None:
        self.adapter = adapter = model.codec if isinstance(model, TrainedModel) else model
        if fingerprint is None:
            fingerprint = model.fingerprint if isinstance(model, TrainedModel) else fingerprint_of(adapter.module)
        self.fingerprint, self.samples = fingerprint, adapter.samples
        self.max_pixels = max_pixels
        self.stopwatch = Stopwatch()
        self.has_many_rates = isinstance(adapter, ConditionedAdapter)
        self._name = type(adapter.module).__name__
        try:
            self._file_fingerprint = bytes.fromhex(fingerprint[: 2 * NUM_FINGERPRINT_BYTES])
        except ValueError:
            self._file_fingerprint = b""
        if len(self._file_fingerprint) != NUM_FINGERPRINT_BYTES:
            raise PairError(
                f"codec {self._name}: expected a fingerprint of at least 16 hexadecimal digits, got {fingerprint!r}; "
                "pass distillkit's fingerprint of the module."
            )
        self._lock = _LOCKS.setdefault(adapter.module, RLock())
        self._coder, small, self.note = choose_coder(
            adapter, precision, trusted=trusted, stopwatch=self.stopwatch, compress=self._compress_blank
        )
        self.is_fast = isinstance(self._coder, FastCodec)
        tiled = self._coder.tiled if isinstance(self._coder, FastCodec) else []
        self._memory = CodingMemory(self._code_blank, tiled, adapter.stride)
        self.needs_trust = isinstance(self._coder, ForeignCodec) and self._coder.is_unsafe
        large = self._compress_blank(self._coder, 2, 3)
        # Only what is watched is known to come to the same latents in a codec that shares the path.
        self._reads = [bytes.fromhex(other)[:NUM_FINGERPRINT_BYTES] for other in adapter.reads]
        path = bytes.fromhex(entropy_path(adapter.module))[:NUM_PATH_BYTES]
        self._entropy_path = path if self.is_fast else NO_PATH
        self._num_substreams = len(small.strings)
        self._blank_shapes = (small.shape, large.shape)
        self._check_latents(small, 1, 1)
        self._check_latents(large, 2, 3)

    def encode(self, image: NDArray[Any], quality: float | None = None) -> bytes:
        """Return the compressed file of a picture.

        Args:
            image: of `samples`, shape (H, W, C): 8-bit RGB is uint8, shape (H, W, 3).
            quality: in [0, 1], for a codec of many rates; None for one of a single rate.

        Raises:
            BitstreamError: a side is longer than the file format can say.
            DataError: it takes more memory than is free, see `memory_bytes`.
            PairError: the quality is missing, out of range, or given to a codec of one rate; or the codec's output does
                not follow the rule that it followed on blank images.
            ValueError: `image` is not of that type and shape, or has values above the peak.
        """
        at_quality(self.adapter, quality)  # it says what is wrong
        if quality is None and self.has_many_rates:
            raise PairError(
                f"codec {self._name}: it has many rates; expected a quality from 0 to 1, got none; pass `quality=0.5`, "
                "on the command line `--quality`, `--bpp` or `--psnr`."
            )
        quality = None if quality is None else file_quality(quality)  # as the decoder will read it
        samples = self.samples
        if image.dtype != samples.dtype or image.ndim != 3 or image.shape[2] != samples.channels or image.size == 0:
            raise ValueError(
                f"image: expected {samples.dtype} of shape (H, W, {samples.channels}), got {image.dtype} of shape "
                f"{image.shape}."
            )
        if samples.bits not in (8, 16) and int(image.max()) > samples.peak:
            raise ValueError(f"image: expected values up to {samples.peak}, got {image.max()}; scale it.")
        height, width, _ = image.shape
        check_bounds(width, height)
        if (problem := self.memory_problem(height, width)) is not None:
            raise DataError(problem)
        with self._call():
            rows, columns = self._padded_strides(height, width)
            latents, checksums = self._coder.compress(self._padded(image, rows, columns), quality)
            self._check_latents(latents, rows, columns)
            substreams = tuple(strings[0] for strings in latents.strings)
            digest = entropy_hash(width, height, checksums)
            about = (self._file_fingerprint, width, height, substreams, digest, self._entropy_path, quality)
            return write(CompressedImage(*about, samples.channels, samples.bits))

    def decode(self, data: bytes) -> NDArray[Any]:
        """Return the image in the compressed file `data`: of `samples`, shape (H, W, C).

        Raises:
            BitstreamError: the file is damaged, a model of another entropy path wrote it, its image is too large (also
                for the memory that is free) or of other samples, or it was decoded to something else than was encoded.
        """
        image = read(data)
        check_size(image.width, image.height, self.max_pixels)
        with self._call():
            image.check_model(self._file_fingerprint, self._entropy_path, self._reads)
            image.check_samples(self.samples.channels, self.samples.bits)
            image.check_rate(is_variable=self.has_many_rates)
            if (problem := self.memory_problem(image.height, image.width)) is not None:
                raise BitstreamError(problem)
            if len(image.substreams) != self._num_substreams:
                raise BitstreamError(
                    f"compressed file: expected {self._num_substreams} substreams, as codec {self._name} writes, "
                    f"got {len(image.substreams)}; compress the image again."
                )
            rows, columns = self._padded_strides(image.height, image.width)
            latents = CompressedLatents([[substream] for substream in image.substreams], self._shape(rows, columns))
            x_hat = self._coder.decompress(latents, image)
            expected = (1, self.samples.channels, rows * self.adapter.stride, columns * self.adapter.stride)
            if tuple(x_hat.shape) != expected:
                raise PairError(
                    f"codec {self._name}: expected a decoded batch of shape {expected}, got {tuple(x_hat.shape)}; "
                    "its decompress must return the size that was compressed."
                )
            return _to_pixels(x_hat[0, :, : image.height, : image.width], self.samples)

    def memory_bytes(self, height: int, width: int) -> int:
        """Return about how many bytes coding a picture takes, beside what the process holds already.

        Measured once, in a second or so, on two small pictures; mostly a few tenths too high.
        """
        with self._lock:
            return self._memory.bytes_of(height, width)

    def memory_problem(self, height: int, width: int) -> str | None:
        """Return why a picture cannot be coded in the memory that is free, or None; warns of what a large one takes."""
        with self._lock:
            return self._memory.problem(height, width, self._device())

    def _code_blank(self, rows: int, columns: int) -> None:
        blank = np.zeros((rows * self.adapter.stride, columns * self.adapter.stride, self.samples.channels))
        data = self.encode(blank.astype(self.samples.dtype), MIDDLE if self.has_many_rates else None)
        if not self.needs_trust:
            self.decode(data)

    @contextmanager
    def _call(self) -> Generator[None]:
        """Keep other threads out: the codec's modules and the stopwatch hold the state of one call at a time."""
        with self._lock:
            self.stopwatch.reset()
            with self.stopwatch.time("file"):
                yield

    def _padded(self, image: NDArray[Any], rows: int, columns: int) -> Tensor:
        """Return a batch of shape (1, C, H, W), range [0, 1], the last row and column replicated."""
        margins = ((0, rows * self.adapter.stride - len(image)), (0, columns * self.adapter.stride - image.shape[1]))
        padded = np.pad(image, (*margins, (0, 0)), mode="edge") if margins != ((0, 0), (0, 0)) else image
        padded = padded if padded.dtype == np.uint8 else padded.astype(np.float32)  # torch has little for uint16
        batch = torch.from_numpy(np.require(padded, requirements=["C", "W"])).permute(2, 0, 1)[None]
        batch = batch.to(self._device()).to(torch.float32).div_(self.samples.peak)
        return batch if self._coder.takes_channels_last else batch.contiguous()

    def _compress_blank(self, coder: FastCodec | ForeignCodec, rows: int, columns: int) -> CompressedLatents:
        stride = self.adapter.stride
        try:
            with self._lock:
                shape = (1, self.samples.channels, rows * stride, columns * stride)
                blank = torch.zeros(shape, device=self._device())
                return coder.compress(blank, MIDDLE if self.has_many_rates else None)[0]
        except ValueError as error:  # CompressAI's, where update() was forgotten
            raise PairError(
                f"codec {self._name}: expected to compress a blank image, got {error}; call adapter.update() first."
            ) from error

    def _check_latents(self, latents: CompressedLatents, rows: int, columns: int) -> None:
        numbers = [len(strings) for strings in latents.strings]
        if numbers != [1] * self._num_substreams:
            raise PairError(
                f"codec {self._name}: expected {self._num_substreams} substreams of one string for one image, "
                f"got {len(numbers)} of {numbers}; distillkit's file needs the same number for every image."
            )
        expected = self._shape(rows, columns)
        if latents.shape != expected:
            raise PairError(
                f"codec {self._name}: expected shape {expected} for {rows}x{columns} strides, got {latents.shape}; "
                "its shape must follow from the padded image's size alone."
            )

    def _shape(self, rows: int, columns: int) -> Any:
        return grown(*self._blank_shapes, rows, columns, f"codec {self._name}: shape")

    def _padded_strides(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.adapter.stride), -(-width // self.adapter.stride)

    def _device(self) -> torch.device:
        return next((tensor.device for tensor in self.adapter.module.parameters()), torch.device("cpu"))


def _to_pixels(x_hat: Tensor, samples: Samples) -> NDArray[Any]:
    """Return an image of shape (C, H, W), range [0, 1], as uint8 or uint16, shape (H, W, C)."""
    rounded = x_hat.permute(1, 2, 0).clamp(0, 1).mul_(samples.peak).round_()
    pixels = rounded.to(torch.uint8 if samples.bits <= 8 else torch.int32).contiguous().cpu().numpy()
    return pixels.astype(samples.dtype, copy=False)
