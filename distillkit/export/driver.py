"""Codes pictures with exported networks: numpy, constriction, and ONNX Runtime, OpenVINO or torch; no distillkit.

This file, with the few files of distillkit that it uses, is copied into every export; `run.py` there is its command
line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..codec.bitstream import CompressedImage, check_bounds, file_quality, read, write
from ..codec.checksums import entropy_hash
from ..codec.coder import TableCoder
from ..codec.reading import MAX_PIXELS, check_size
from ..data.samples import Samples
from ..errors import BitstreamError, DistillkitError, PairError
from .coding import Decoding, Encoding
from .memory import ExportMemory
from .runtimes import load_network
from .steps import EntropyModel, Steps

FORMAT = "distillkit-export-2"


@final
class ExportedCodec:
    """A codec of exported networks; its files and distillkit's are the same.

    Attributes:
        samples: of its pictures.

    Args:
        folder: what `distillkit export` wrote.
        threads: of the runtime; 0 for its own choice.
        max_pixels: files of larger images are refused before anything is allocated.

    Raises:
        DistillkitError: the folder is not an export, or its runtime is not installed.
    """

    def __init__(self, folder: str | Path, threads: int = 0, max_pixels: int = MAX_PIXELS) -> None:
        self.folder = Path(folder)
        self.max_pixels = max_pixels
        try:
            about = json.loads((self.folder / "codec.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DistillkitError(
                f"export {folder}: expected a folder with codec.json, got {error}; export the model again."
            ) from None
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise DistillkitError(
                f"export {folder}: expected a codec.json of format {FORMAT}, got another; export the model again."
            )
        self.about: dict[str, Any] = about
        try:
            self._read(threads)
        except (KeyError, TypeError, ValueError, AttributeError, OSError, EOFError, BadZipFile) as error:
            raise DistillkitError(
                f"export {folder}: expected the tables and the description of a codec, got damaged ones ({error!r}); "
                "export the model again."
            ) from None
        self._memory = ExportMemory(self._code)

    def _read(self, threads: int) -> None:
        about = self.about
        self.stride, self.samples = int(about["stride"]), Samples(*about["samples"])
        self.flow: str = about["flow"]
        self._fingerprint = bytes.fromhex(about["fingerprint"])[:8]
        self._reads = [bytes.fromhex(other)[:8] for other in about["reads"]]
        self._entropy_path = bytes.fromhex(about["entropy_path"])[:4]
        self._num_substreams = int(about["num_substreams"])
        self._networks = {name: load_network(self.folder, name, threads) for name in about["networks"]}
        with (self.folder / "tables.npz").open("rb") as opened, np.load(opened) as file:
            self.tables = {name: file[name] for name in file.files}
        self.coders: dict[str, TableCoder] = {}
        if self.flow == "program":
            self._models = [EntropyModel(name, i, self.tables) for i, name in enumerate(about["entropy_models"])]
            self._programs = {name: list(about[name]) for name in ("encode", "decode", "substreams")}
            return
        self._latents = {name: (int(channels), int(each)) for name, (channels, each) in about["latents"].items()}
        self._context_channels = int(about["context_channels"] or 0)
        for latent in about["entropy_models"]:
            cdf, lengths, offsets = (self.tables[f"{latent}.{key}"] for key in ("cdf", "cdf_length", "offset"))
            self.coders[latent] = TableCoder(cdf, lengths, offsets, latent)

    def _code(self, side: int) -> None:
        blank = np.zeros((side, side, self.samples.channels), self.samples.dtype)
        self.decode(self.encode(blank, 0.5 if self.has_many_rates else None))

    @property
    def has_many_rates(self) -> bool:
        """Whether `encode` takes a quality."""
        return "gain.y" in self.tables

    def encode(self, image: NDArray[Any], quality: float | None = None) -> bytes:
        """Return the compressed file of an image.

        Args:
            image: of `samples`, shape (H, W, C): 8-bit RGB is uint8, shape (H, W, 3).
            quality: in [0, 1], of a codec of many rates; None of one of a single rate.

        Raises:
            BitstreamError: a side is longer than the file format can say.
            DataError: it takes more memory than is free.
            PairError: a latent is too large to be coded, or no number; or the quality does not suit the codec.
            ValueError: `image` is not of that type and shape, or has values above the peak.
        """
        self._check(image)
        if self.has_many_rates != (quality is not None) or not (quality is None or 0 <= quality <= 1):
            wanted = "a quality from 0 to 1" if self.has_many_rates else "no quality, for the codec has one rate"
            raise PairError(f"export {self.folder}: expected {wanted}, got {quality}; correct it.")
        quality = None if quality is None else file_quality(quality)  # as the decoder will read it
        height, width, _ = image.shape
        check_bounds(width, height)
        self._memory.check(height, width)
        margins = ((0, -height % self.stride), (0, -width % self.stride), (0, 0))
        padded = np.pad(image, margins, mode="edge").transpose(2, 0, 1)[None]
        x = np.ascontiguousarray(padded, np.float32) / np.float32(self.samples.peak)
        substreams, checksums = self._program_encoded(x) if self.flow == "program" else self._encoded(x, quality)
        digest = entropy_hash(width, height, checksums)
        about = (self._fingerprint, width, height, tuple(substreams), digest, self._entropy_path, quality)
        return write(CompressedImage(*about, self.samples.channels, self.samples.bits))

    def decode(self, data: bytes) -> NDArray[Any]:
        """Return the image in the compressed file `data`: of `samples`, shape (H, W, C).

        Raises:
            BitstreamError: the file is damaged, a model of another entropy path wrote it, its image is too large or of
                other samples, or it was decoded to something else than was encoded.
            DataError: the image takes more memory than is free.
        """
        (image := read(data)).check_model(self._fingerprint, self._entropy_path, self._reads)
        image.check_samples(self.samples.channels, self.samples.bits)
        image.check_rate(is_variable=self.has_many_rates)
        check_size(image.width, image.height, self.max_pixels)
        self._memory.check(image.height, image.width)
        if len(image.substreams) != self._num_substreams:
            raise BitstreamError(
                f"compressed file: expected {self._num_substreams} substreams, got {len(image.substreams)}; is it this "
                "model's?"
            )
        x_hat = self._program_decoded(image) if self.flow == "program" else self._decoded(image)
        x_hat = np.clip(x_hat[0, :, : image.height, : image.width], 0, 1) * np.float32(self.samples.peak)
        return np.rint(x_hat).astype(self.samples.dtype).transpose(1, 2, 0).copy()

    def _check(self, image: NDArray[Any]) -> None:
        channels, dtype, peak = self.samples.channels, self.samples.dtype, self.samples.peak
        if image.dtype != dtype or image.ndim != 3 or image.shape[2] != channels or image.size == 0:
            raise ValueError(
                f"image: expected {dtype} of shape (H, W, {channels}), got {image.dtype} of shape {image.shape}."
            )
        if int(image.max()) > peak:
            raise ValueError(f"image: expected values up to {peak}, got {image.max()}; scale it.")

    def _program_encoded(self, x: NDArray[Any]) -> tuple[list[bytes], dict[str, int]]:
        steps = Steps(self._models, self._networks)
        steps.follow(self._programs["encode"], x)
        return [steps.written(number) for number in self._programs["substreams"]], steps.checksums("encode")

    def _program_decoded(self, image: CompressedImage) -> NDArray[Any]:
        steps = Steps(self._models, self._networks, image.substreams)
        grid = np.zeros((1, 1, *self._strides(image)), np.float32)
        # Nothing is synthesised of latents that are not what was encoded.
        return steps.follow(self._programs["decode"], grid, lambda: image.check_decoded(steps.checksums("decode")))

    def _encoded(self, x: NDArray[Any], quality: float | None) -> tuple[list[bytes], dict[str, int]]:
        coding = Encoding(self.coders, self.tables, self.about["entropy_models"])
        y = self._scaled("y", self._run("g_a", x), quality)
        if self.flow == "factorized":
            coding.bottleneck("y", y)
            return coding.strings, coding.checksums
        z = self._run("h_a", np.abs(y) if self.flow == "scale" else y)
        z_hat = coding.bottleneck("z", self._scaled("z", z, quality))
        self._latent(coding, self._run("h_s", self._scaled("z_inverse", z_hat, quality)), y)
        return [*coding.strings[1:], coding.strings[0]], coding.checksums  # z's last, as CompressAI has them

    def _decoded(self, image: CompressedImage) -> NDArray[Any]:
        rows, columns = self._strides(image)
        coding = Decoding(self.coders, self.tables, self.about["entropy_models"])
        *coding.strings, last = image.substreams
        if self.flow == "factorized":
            y_hat = coding.bottleneck("y", last, self._shape("y", rows, columns))
        else:
            z_hat = coding.bottleneck("z", last, self._shape("z", rows, columns))
            y_hat = self._latent(coding, self._run("h_s", self._scaled("z_inverse", z_hat, image.quality)), None)
        image.check_decoded(coding.checksums)
        return self._run("g_s", np.ascontiguousarray(self._scaled("y_inverse", y_hat, image.quality), np.float32))

    def _run(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        return self._networks[name]([x])[0]

    def _strides(self, image: CompressedImage) -> tuple[int, int]:
        return -(-image.height // self.stride), -(-image.width // self.stride)

    def _scaled(self, unit: str, latent: NDArray[Any], quality: float | None) -> NDArray[Any]:
        if quality is None:
            return latent
        logs = self.tables[f"gain.{unit}"].astype(np.float64)
        weights = np.maximum(1 - np.abs(quality * (len(logs) - 1) - np.arange(len(logs))), 0)
        return (latent * np.exp(weights @ logs)[:, None, None]).astype(latent.dtype)

    def _shape(self, latent: str, rows: int, columns: int) -> tuple[int, int, int]:
        channels, each = self._latents[latent]
        return channels, rows * each, columns * each

    def _latent(self, coding: Any, params: NDArray[Any], y: NDArray[Any] | None) -> NDArray[Any]:
        if self.flow == "scale":
            return coding.gaussian(params, None, y)
        if self.flow == "mean-scale":
            scales, means = np.split(params, 2, 1)
            return coding.gaussian(scales, means, y)
        halves = [np.zeros(0)] * 2
        hyper = self._half(params)
        wanted = self._half(y) if y is not None else (None, None)
        shape = (1, self._latents["y"][0], *params.shape[2:])
        context = np.zeros((1, self._context_channels, *hyper[0].shape[2:]))
        for turn in (0, 1):
            if turn:
                anchors = self._whole(halves[0], np.zeros_like(halves[0]), shape)
                context = self._half(self._run("context_prediction", anchors))[1]
            merged = np.concatenate((context, hyper[turn]), 1)
            scales, means = np.split(self._run("entropy_parameters", merged), 2, 1)
            halves[turn] = coding.gaussian(scales, means, wanted[turn])
        return self._whole(halves[0], halves[1], shape)

    def _half(self, latent: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return anchors and the others of a latent, each of half its width."""
        first = np.empty((*latent.shape[:3], latent.shape[3] // 2), latent.dtype)
        second = np.empty_like(first)
        odd = self.about["anchor_parity"] == "odd"
        for row in (0, 1):
            first[:, :, row::2] = latent[:, :, row::2, (row + odd) % 2 :: 2]
            second[:, :, row::2] = latent[:, :, row::2, (row + odd + 1) % 2 :: 2]
        return first, second

    def _whole(self, first: NDArray[Any], second: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        latent = np.empty(shape)
        odd = self.about["anchor_parity"] == "odd"
        for row in (0, 1):
            latent[:, :, row::2, (row + odd) % 2 :: 2] = first[:, :, row::2]
            latent[:, :, row::2, (row + odd + 1) % 2 :: 2] = second[:, :, row::2]
        return latent
