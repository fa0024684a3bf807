"""A trained model at work beside JPEG and WebP: files of equal size, and the decoded pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, final

from PIL import Image

from ..data.images import read_image
from .classical import ClassicalCodec, classical_codec
from .contact_sheet import save_contact_sheet
from .evaluate import evaluate_model
from .quality import decibel, ms_ssim, psnr_db
from .results import ImageResult

if TYPE_CHECKING:
    from rich.table import Table


@final
@dataclass(frozen=True)
class FirstLook:
    """What was measured on real files.

    Attributes:
        results: codec -> one result for each picture, the model's first.
        picture: a PNG with the pictures side by side.
    """

    results: dict[str, tuple[ImageResult, ...]]
    picture: Path

    def table(self) -> Table:
        """Return means over the pictures as a table."""
        from rich import box

        from .fitted import FittedTable

        table = FittedTable(title="Files of equal size, means over the pictures", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        for heading in ("bytes", "bpp", "PSNR dB", "MS-SSIM dB"):
            table.add_column(heading, justify="right")
        for name, results in self.results.items():
            similarities = [result.ms_ssim_db for result in results if result.ms_ssim_db is not None]
            table.add_row(
                name,
                f"{fmean(result.file_bytes for result in results):.0f}",
                f"{fmean(result.rate_bpp for result in results):.3f}",
                f"{fmean(result.psnr_db for result in results):.2f}",
                f"{fmean(similarities):.2f}" if similarities else "-",
            )
        return table


def first_look(
    model: str | Path, images: Sequence[Path], folder: Path, against: Sequence[str] = ("jpeg", "webp")
) -> FirstLook:
    """Code pictures with a trained model, and with classical codecs to files of at most the same size.

    Args:
        model: a model's file, or `zoo:NAME`.
        images: 8-bit RGB pictures, which the classical codecs take.
        folder: gets the files, the decoded pictures, and `first-look.png` with all of them side by side.
        against: names of classical codecs, see `classical`. At their lowest quality a file may be larger.

    Raises:
        DistillkitError: a picture or the model cannot be used.
    """
    name = Path(str(model)).name
    results = {name: tuple(evaluate_model(model, images, folder / name).images)}
    for codec in map(classical_codec, against):
        out = folder / codec.title
        out.mkdir(parents=True, exist_ok=True)
        results[codec.title] = tuple(
            _at_equal_size(codec, path, ours, out) for path, ours in zip(images, results[name], strict=True)
        )
    picture = folder / "first-look.png"
    save_contact_sheet(images, results, folder, picture)
    return FirstLook(results, picture)


def _at_equal_size(codec: ClassicalCodec, path: Path, ours: ImageResult, folder: Path) -> ImageResult:
    """Code one picture at the highest quality whose file is not larger than ours, by bisection."""
    picture = read_image(path)
    low, high = codec.qualities[0], codec.qualities[-1]
    while low < high:
        middle = (low + high + 1) // 2
        if len(codec.encode(picture, middle)) <= ours.file_bytes:
            low = middle
        else:
            high = middle - 1
    start = time.perf_counter()
    data = codec.encode(picture, low)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    seconds = time.perf_counter() - encoded
    (folder / f"{ours.name}.{codec.name}").write_bytes(data)
    Image.fromarray(decoded).save(folder / f"{ours.name}.png")
    similarity = ms_ssim(picture, decoded)
    return ImageResult(
        name=ours.name,
        source=path,
        width=ours.width,
        height=ours.height,
        file_bytes=len(data),
        rate_bpp=8 * len(data) / (ours.width * ours.height),
        estimated_bpp=None,
        psnr_db=psnr_db(picture, decoded),
        ms_ssim=similarity,
        ms_ssim_db=None if similarity is None else decibel(similarity),
        encode_seconds=encoded - start,
        decode_seconds=seconds,
        rd_cost=None,
    )
