"""What was measured: of each picture and of the set, as Python, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from ..data.samples import RGB, Samples
from .quality import decibel

PERCEPTUAL = ("lpips", "dists")
AVERAGED = (
    *("rate_bpp", "estimated_bpp", "psnr_db", "ms_ssim", "encode_seconds", "decode_seconds", "rd_cost"),
    *PERCEPTUAL,
)

# CompressAI's names of what its plots and tables read.
_COMPRESSAI = {
    "bpp": "rate_bpp",
    "psnr-rgb": "psnr_db",
    "ms-ssim-rgb": "ms_ssim",
    "encoding_time": "encode_seconds",
    "decoding_time": "decode_seconds",
}


@dataclass(frozen=True)
class ImageResult:
    """What was measured on one picture.

    Attributes:
        name: of its files in the output folder, without suffix: `<name>.dk`, and `<name>.png` or `.tif`.
        source: path of the original.
        width: of the original, in pixels.
        height: of the original, in pixels.
        file_bytes: size of the compressed file, header included.
        rate_bpp: bits of that file for each pixel of the original.
        estimated_bpp: bits per pixel by the likelihoods of a forward pass in eval mode, or None, see the function.
        psnr_db: of the decoded 8-bit picture against the original, over all RGB samples, in dB.
        ms_ssim: multi-scale structural similarity (unitless), or None where a side is shorter than 161 pixels.
        ms_ssim_db: the same as -10 log10(1 - MS-SSIM), in dB.
        encode_seconds: wall clock from pixels to the written file.
        decode_seconds: wall clock from that file to pixels.
        rd_cost: lmbda times the distortion that was trained for, plus bpp (for the mean squared error lmbda * 255^2 *
            MSE + bpp, MSE on the scale [0, 1]); None where no lmbda was given, or the picture is too small.
        lpips: perceptual distance (unitless), or None where it was not asked for, see `Lpips`.
        dists: likewise, see `Dists`.
    """

    name: str
    source: Path
    width: int
    height: int
    file_bytes: int
    rate_bpp: float
    estimated_bpp: float | None
    psnr_db: float
    ms_ssim: float | None
    ms_ssim_db: float | None
    encode_seconds: float
    decode_seconds: float
    rd_cost: float | None
    lpips: float | None = None
    dists: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a set of pictures.

    Attributes:
        fingerprint: of the codec's module.
        lmbda: the trade-off in `rd_cost`, or None.
        metric: the quality that was trained for.
        images: one result for each picture, in the order of evaluation.
        name: of the codec.
        decoded_in: the process in which the files were decoded: `fresh` (the encoder's state cannot help it) or `same`
            (a codec that lives in memory only).
        environment: versions and machine on which it was measured.
        quality: at which a codec of many rates was measured, in [0, 1]; else None.
        samples: of the pictures.
    """

    fingerprint: str
    lmbda: float | None
    images: tuple[ImageResult, ...]
    metric: Literal["psnr", "ms-ssim"] = "psnr"
    name: str = "model"
    decoded_in: Literal["fresh", "same"] = "same"
    environment: Mapping[str, str | int] = field(default_factory=dict)
    quality: float | None = None
    samples: Samples = RGB

    @property
    def averages(self) -> dict[str, float | None]:
        """The mean over the images of each measure; None where a picture has no value: a part would mislead.

        `ms_ssim_db` is the mean MS-SSIM in dB, as CompressAI's tools have it, not the mean of the pictures' dB.
        """
        columns = {name: [getattr(image, name) for image in self.images] for name in AVERAGED}
        means = {name: None if None in values else fmean(values) for name, values in columns.items()}
        return means | {"ms_ssim_db": None if means["ms_ssim"] is None else decibel(means["ms_ssim"])}

    @property
    def estimate_gap(self) -> float | None:
        """The files' mean rate over the estimated one, minus 1; None where that was not estimated."""
        rate, estimate = (self.averages[key] for key in ("rate_bpp", "estimated_bpp"))
        return None if rate is None or not estimate else rate / estimate - 1

    def to_json(self) -> str:
        """Return the whole as JSON, averages included; an infinite PSNR becomes null.

        `results` holds the averages as CompressAI writes them, so that its tools read the file.
        """
        averages = self.averages
        values = {name: averages[key] for name, key in _COMPRESSAI.items()}
        about = [f"distillkit {self.environment.get('distillkit', '')}".strip(), f"model {self.fingerprint[:16]}"]
        if self.lmbda is not None:
            about.append(f"lambda {self.lmbda:g}")
        content = {
            "name": self.name,
            "description": ", ".join(about),
            "results": {name: [value] for name, value in values.items() if value is not None and math.isfinite(value)},
            "fingerprint": self.fingerprint,
            "lmbda": self.lmbda,
            "metric": self.metric,
            **({} if self.quality is None else {"quality": self.quality}),
            "samples": asdict(self.samples),
            "decoded_in": self.decoded_in,
            "environment": dict(self.environment),
            "averages": averages,
            "estimate_gap": self.estimate_gap,
            "images": [asdict(image) | {"source": image.source.as_posix()} for image in self.images],
        }
        return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return one line per picture, with a heading; empty where a picture has no value."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [each.name for each in fields(ImageResult)], lineterminator="\n")
        writer.writeheader()
        for image in self.images:
            writer.writerow(asdict(image) | {"source": image.source.as_posix()})
        return text.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
