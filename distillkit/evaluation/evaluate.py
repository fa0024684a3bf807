"""Measure a codec on real files: compress each picture, write it, read it back, decode it, and compare."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from PIL import Image

from ..codec.runtime import ImageCodec
from ..errors import DataError
from ..images import read_image
from .quality import ms_ssim, mse01, psnr_db

AVERAGED = ("rate_bpp", "psnr_db", "ms_ssim", "encode_seconds", "decode_seconds", "rd_cost")


@dataclass(frozen=True)
class ImageResult:
    """What was measured on one picture.

    Attributes:
        name: of its files in the output folder, without suffix: `<name>.dk` and `<name>.png`.
        source: path of the original.
        width: of the original, in pixels.
        height: of the original, in pixels.
        file_bytes: size of the compressed file, header included.
        rate_bpp: bits of that file for each pixel of the original.
        psnr_db: of the decoded 8-bit picture against the original, in dB.
        ms_ssim: multi-scale structural similarity (unitless), or None where a side is shorter than 161 pixels.
        encode_seconds: wall clock from pixels to the written file.
        decode_seconds: wall clock from that file to pixels.
        rd_cost: lmbda * 255^2 * MSE + bpp, MSE on the scale [0, 1]; None where no lmbda was given.
    """

    name: str
    source: Path
    width: int
    height: int
    file_bytes: int
    rate_bpp: float
    psnr_db: float
    ms_ssim: float | None
    encode_seconds: float
    decode_seconds: float
    rd_cost: float | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a set of pictures.

    Attributes:
        fingerprint: of the codec's module.
        lmbda: the trade-off in `rd_cost`, or None.
        images: one result for each picture, in the order of evaluation.
    """

    fingerprint: str
    lmbda: float | None
    images: tuple[ImageResult, ...]

    @property
    def averages(self) -> dict[str, float | None]:
        """The mean over the images of each measure; None where a picture has no value, for a part would mislead."""
        columns = {name: [getattr(image, name) for image in self.images] for name in AVERAGED}
        return {name: None if None in values else fmean(values) for name, values in columns.items()}

    def to_json(self) -> str:
        """Return the whole as JSON, averages included; an infinite PSNR becomes null."""
        content = {
            "fingerprint": self.fingerprint,
            "lmbda": self.lmbda,
            "averages": self.averages,
            "images": [asdict(image) | {"source": image.source.as_posix()} for image in self.images],
        }
        return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def evaluate(
    codec: ImageCodec,
    paths: Sequence[Path],
    out: Path,
    lmbda: float | None,
    on_image: Callable[[ImageResult], None] | None = None,
) -> Evaluation:
    """Compress and decode the pictures in `paths`, and measure.

    Writes for each picture `<name>.dk` (compressed) and `<name>.png` (decoded) into `out`, in subfolders like those of
    the originals, and `results.json`. The first picture is coded once more beforehand, untimed, to warm up.

    Args:
        codec: what is measured.
        paths: pictures, 8-bit RGB.
        out: folder for the files; made if it does not exist.
        lmbda: trade-off of the rate-distortion cost, or None to leave that out.
        on_image: called with each result as soon as it is there.

    Raises:
        DataError: there are no pictures, one cannot be used, or an original would be overwritten.
    """
    if not paths:
        raise DataError("evaluation: expected at least one picture, got none; check the folder of test images.")
    names = _output_names(paths)
    originals = {path.resolve() for path in paths}
    for name in names:
        if (out / f"{name}.png").resolve() in originals:
            raise DataError(
                f"evaluation: {out / name}.png is an original and would be overwritten; choose another folder."
            )
    codec.decode(codec.encode(read_image(paths[0])))
    results = []
    for path, name in zip(paths, names, strict=True):
        result = _evaluate_image(codec, path, name, out, lmbda)
        results.append(result)
        if on_image is not None:
            on_image(result)
    evaluation = Evaluation(codec.fingerprint, lmbda, tuple(results))
    (out / "results.json").write_text(evaluation.to_json(), encoding="utf-8")
    return evaluation


def _evaluate_image(codec: ImageCodec, path: Path, name: str, out: Path, lmbda: float | None) -> ImageResult:
    original = read_image(path)
    height, width, _ = original.shape
    file = out / f"{name}.dk"
    file.parent.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    file.write_bytes(codec.encode(original))
    encode_seconds = perf_counter() - start
    start = perf_counter()
    decoded = codec.decode(file.read_bytes())
    decode_seconds = perf_counter() - start
    Image.fromarray(decoded).save(out / f"{name}.png")
    file_bytes = file.stat().st_size
    rate_bpp = 8 * file_bytes / (width * height)
    return ImageResult(
        name=name,
        source=path,
        width=width,
        height=height,
        file_bytes=file_bytes,
        rate_bpp=rate_bpp,
        psnr_db=psnr_db(original, decoded),
        ms_ssim=ms_ssim(original, decoded),
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        rd_cost=None if lmbda is None else lmbda * 255**2 * mse01(original, decoded) + rate_bpp,
    )


def _output_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: its place under their common folder, without suffix, numbered where taken."""
    absolute = [Path(os.path.abspath(path)) for path in paths]
    root = os.path.commonpath([path.parent for path in absolute])
    names: list[str] = []
    taken: set[str] = set()
    for path in absolute:
        stem = path.relative_to(root).with_suffix("").as_posix()
        name, count = stem, 1
        while name.casefold() in taken:  # some file systems do not tell "A" from "a"
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
