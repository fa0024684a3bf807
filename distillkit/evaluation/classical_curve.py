"""The curve of a classical codec, on the same pictures and by the same measures as a learned one's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from time import perf_counter

from ..data.images import check_images, read_image
from ..errors import DataError
from .classical import ClassicalCodec
from .curve import RDCurve, RDPoint
from .evaluate import output_names
from .quality import ms_ssim, psnr_db

#: Where in a codec's range of qualities it is measured.
_PLACES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.88, 0.95)


def classical_curve(codec: ClassicalCodec, paths: Sequence[Path], qualities: Sequence[int] | None = None) -> RDCurve:
    """Compress and decode the pictures at each quality, in memory, and measure.

    Args:
        codec: see `classical_codec`.
        paths: pictures, 8-bit RGB.
        qualities: of the codec's own scale; by default eight from a tenth of the scale up.

    Raises:
        DataError: there are no pictures, or one cannot be used.
    """
    if not paths:
        raise DataError(f"{codec.title}: expected at least one picture to measure on, got none; name a folder of them.")
    try:
        check_images(paths)
    except DataError as error:
        raise DataError(f"{codec.title}: it codes only 8-bit RGB here. {error}") from None
    if qualities is None:
        last = len(codec.qualities) - 1
        qualities = sorted({codec.qualities[round(place * last)] for place in _PLACES})
    per_image: dict[str, tuple[RDPoint, ...]] = {}
    for name, path in zip(output_names(paths), paths, strict=True):
        per_image[name] = tuple(_point(codec, path, quality) for quality in qualities)
    means = [_mean([points[index] for points in per_image.values()]) for index in range(len(qualities))]
    source = f"{codec.version}; {codec.settings}; qualities {', '.join(map(str, qualities))}"
    return RDCurve(codec.title, tuple(means), per_image, source)


def _point(codec: ClassicalCodec, path: Path, quality: int) -> RDPoint:
    original = read_image(path)
    start = perf_counter()
    data = codec.encode(original, quality)
    between = perf_counter()
    decoded = codec.decode(data)
    end = perf_counter()
    height, width, _ = original.shape
    return RDPoint(
        rate_bpp=8 * len(data) / (height * width),
        psnr_db=psnr_db(original, decoded),
        ms_ssim=ms_ssim(original, decoded),
        encode_seconds=between - start,
        decode_seconds=end - between,
    )


def _mean(points: Sequence[RDPoint]) -> RDPoint:
    optional = ("psnr_db", "ms_ssim", "encode_seconds", "decode_seconds")
    columns = {key: [getattr(point, key) for point in points] for key in optional}
    means = {key: None if None in values else fmean(values) for key, values in columns.items()}
    return RDPoint(rate_bpp=fmean(point.rate_bpp for point in points), **means)
