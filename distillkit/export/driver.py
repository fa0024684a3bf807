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
from ..codec.checksums import entropy_hash, step_checksum
from ..codec.coder import TableCoder
from ..codec.reading import MAX_PIXELS, check_size
from ..errors import BitstreamError, DistillkitError, PairError
from .memory import ExportMemory
from .runtimes import Network, load_network

FORMAT = "distillkit-export-1"


@final
class ExportedCodec:
    """A codec of exported networks; its files and distillkit's are the same.

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
        self.stride = int(about["stride"])
        self.flow: str = about["flow"]
        self._fingerprint = bytes.fromhex(about["fingerprint"])[:8]
        self._reads = [bytes.fromhex(other)[:8] for other in about["reads"]]
        self._entropy_path = bytes.fromhex(about["entropy_path"])[:4]
        self._run: dict[str, Network] = {name: load_network(self.folder, name, threads) for name in about["networks"]}
        with (self.folder / "tables.npz").open("rb") as opened, np.load(opened) as file:
            self.tables = {name: file[name] for name in file.files}
        self._latents = {name: (int(channels), int(each)) for name, (channels, each) in about["latents"].items()}
        self._context_channels = int(about["context_channels"] or 0)
        self.coders: dict[str, TableCoder] = {}
        for latent in about["entropy_models"]:
            cdf, lengths, offsets = (self.tables[f"{latent}.{key}"] for key in ("cdf", "cdf_length", "offset"))
            self.coders[latent] = TableCoder(cdf, lengths, offsets, latent)

    def _code(self, picture: NDArray[Any]) -> None:
        self.decode(self.encode(picture, 0.5 if self.has_many_rates else None))

    @property
    def has_many_rates(self) -> bool:
        """Whether `encode` takes a quality."""
        return "gain.y" in self.tables

    def encode(self, image: NDArray[Any], quality: float | None = None) -> bytes:
        """Return the compressed file of an image.

        Args:
            image: uint8, shape (H, W, 3), RGB.
            quality: in [0, 1], of a codec of many rates; None of one of a single rate.

        Raises:
            BitstreamError: a side is longer than the file format can say.
            DataError: it takes more memory than is free.
            PairError: a latent is too large to be coded, or no number; or the quality does not suit the codec.
            ValueError: `image` is not of that type and shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}.")
        if self.has_many_rates != (quality is not None) or not (quality is None or 0 <= quality <= 1):
            wanted = "a quality from 0 to 1" if self.has_many_rates else "no quality, for the codec has one rate"
            raise PairError(f"export {self.folder}: expected {wanted}, got {quality}; correct it.")
        quality = None if quality is None else file_quality(quality)  # as the decoder will read it
        height, width, _ = image.shape
        check_bounds(width, height)
        self._memory.check(height, width)
        margins = ((0, -height % self.stride), (0, -width % self.stride), (0, 0))
        padded = np.pad(image, margins, mode="edge").transpose(2, 0, 1)[None]
        coding = _Encoding(self)
        y = self._run["g_a"](np.ascontiguousarray(padded, np.float32) / np.float32(255))
        y = self._scaled("y", y, quality)
        if self.flow == "factorized":
            coding.bottleneck("y", y)
            substreams = coding.strings
        else:
            z = self._run["h_a"](np.abs(y) if self.flow == "scale" else y)
            z_hat = coding.bottleneck("z", self._scaled("z", z, quality))
            self._latent(coding, self._run["h_s"](self._scaled("z_inverse", z_hat, quality)), y)
            substreams = [*coding.strings[1:], coding.strings[0]]  # z's last, as CompressAI has them
        digest = entropy_hash(width, height, coding.checksums)
        about = (self._fingerprint, width, height, tuple(substreams), digest, self._entropy_path, quality)
        return write(CompressedImage(*about))

    def decode(self, data: bytes) -> NDArray[Any]:
        """Return the image in the compressed file `data`: uint8, shape (H, W, 3), RGB.

        Raises:
            BitstreamError: the file is damaged, a model of another entropy path wrote it, its image is too large or not
                8-bit RGB, or it was decoded to something else than was encoded.
            DataError: the image takes more memory than is free.
        """
        (image := read(data)).check_model(self._fingerprint, self._entropy_path, self._reads)
        image.check_samples(3, 8)
        image.check_rate(is_variable=self.has_many_rates)
        check_size(image.width, image.height, self.max_pixels)
        self._memory.check(image.height, image.width)
        expected = {"factorized": 1, "checkerboard": 3}.get(self.flow, 2)
        if len(image.substreams) != expected:
            raise BitstreamError(
                f"compressed file: expected {expected} substreams, got {len(image.substreams)}; is it this model's?"
            )
        rows, columns = -(-image.height // self.stride), -(-image.width // self.stride)
        coding = _Decoding(self)
        *coding.strings, last = image.substreams
        if self.flow == "factorized":
            y_hat = coding.bottleneck("y", last, self._shape("y", rows, columns))
        else:
            z_hat = coding.bottleneck("z", last, self._shape("z", rows, columns))
            y_hat = self._latent(coding, self._run["h_s"](self._scaled("z_inverse", z_hat, image.quality)), None)
        image.check_decoded(coding.checksums)
        y_hat = self._scaled("y_inverse", y_hat, image.quality)
        x_hat = self._run["g_s"](np.ascontiguousarray(y_hat, np.float32))[0, :, : image.height, : image.width]
        return np.rint(np.clip(x_hat, 0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0).copy()

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
                context = self._half(self._run["context_prediction"](anchors))[1]
            merged = np.concatenate((context, hyper[turn]), 1)
            scales, means = np.split(self._run["entropy_parameters"](merged), 2, 1)
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


class _Coding:
    """What encoding and decoding share: tables, and the hash of all that was coded. Latents are in float64."""

    def __init__(self, codec: ExportedCodec) -> None:
        self.codec = codec
        self.tables, self.coders = codec.tables, codec.coders
        self.strings: list[bytes] = []
        self.checksums: dict[str, int] = {}  # of each entropy model, as distillkit makes them

    def _seen(self, latent: str, indexes: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
        """Take values, in float64, into the hash, and return them."""
        name = self.codec.about["entropy_models"][latent]
        with np.errstate(all="ignore"):  # a forged file's values may be too large, or no numbers at all
            fixed = np.rint(values * 256).astype(np.int32)
        self.checksums[name] = step_checksum(indexes, fixed, self.checksums.get(name, 0))
        return values

    def _indexes(self, scales: NDArray[Any]) -> NDArray[Any]:
        edges, least = (self.tables[f"y.{key}"].astype(np.float64) for key in ("scale_table", "scale_bound"))
        return np.searchsorted(edges[:-1], np.maximum(scales.reshape(-1), least)).astype(np.int32)

    def _medians(self, latent: str) -> NDArray[Any]:
        return self.tables[f"{latent}.medians"].astype(np.float64).reshape(1, -1, 1, 1)


@final
class _Encoding(_Coding):
    def bottleneck(self, latent: str, values: NDArray[Any]) -> NDArray[Any]:
        medians = self._medians(latent)
        channels = np.arange(values.shape[1], dtype=np.int32).reshape(1, -1, 1, 1)
        return _rounded(self._code(latent, values, np.broadcast_to(channels, values.shape), medians))

    def gaussian(self, scales: NDArray[Any], means: NDArray[Any] | None, values: NDArray[Any]) -> NDArray[Any]:
        return self._code("y", values, self._indexes(scales), 0.0 if means is None else means)

    def _code(self, latent: str, values: NDArray[Any], indexes: NDArray[Any], means: Any) -> NDArray[Any]:
        symbols = np.rint(values.astype(np.float64) - means).astype(np.int32)
        step = symbols.reshape(-1), np.ascontiguousarray(indexes.reshape(-1))
        self.strings.append(self.coders[latent].encode([step]))
        return self._seen(latent, step[1], symbols + means)


@final
class _Decoding(_Coding):
    def bottleneck(self, latent: str, data: bytes, shape: tuple[int, int, int]) -> NDArray[Any]:
        indexes = np.repeat(np.arange(shape[0], dtype=np.int32), shape[1] * shape[2])
        symbols = self._decode(latent, data, indexes).reshape(1, *shape)
        return _rounded(self._seen(latent, indexes, symbols + self._medians(latent)))

    def gaussian(self, scales: NDArray[Any], means: NDArray[Any] | None, _: Any) -> NDArray[Any]:
        indexes = self._indexes(scales)
        symbols = self._decode("y", self.strings.pop(0), indexes).reshape(scales.shape)
        return self._seen("y", indexes, symbols + (0.0 if means is None else means))

    def _decode(self, latent: str, data: bytes, indexes: NDArray[Any]) -> NDArray[Any]:
        decoder = self.coders[latent].decoder(data)
        symbols = decoder.decode(indexes)
        decoder.finish()
        return symbols


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Return values with the precision of float32, as distillkit passes on what a bottleneck coded."""
    return values.astype(np.float32).astype(np.float64)
