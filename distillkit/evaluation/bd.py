"""BD-rate: how much rate one codec costs over another at equal quality, with all that the figure depends on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .curve import Metric, RDCurve

Method = Literal["pchip", "akima", "cubic"]

METHODS: tuple[Method, ...] = ("pchip", "akima", "cubic")
MIN_POINTS = 4  #: of each curve: the original method fits a polynomial of four coefficients
MIN_OVERLAP = 0.5  #: of the shorter quality range; below it a figure would describe a small part of either curve
_NUM_RESAMPLES = 1000
_CONFIDENCE = 0.95


class BDRefusedError(DataError):
    """Two curves do not allow a BD-rate that means something."""


@final
@dataclass(frozen=True)
class BDResult:
    """A BD-rate and what it depends on.

    Attributes:
        anchor: name of the curve that is compared with.
        test: name of the curve in question.
        metric: of the quality: `psnr` or `ms-ssim` (in dB).
        method: interpolation of the curves.
        rate_percent: mean difference in rate at equal quality; below zero the test codec needs less.
        psnr_db: BD-PSNR (or BD-MS-SSIM in dB): mean difference in quality at equal rate; None where no rate is shared.
        others: rate_percent by the other interpolations.
        overlap: the part of the shorter curve's quality range that both share, in [0, 1].
        quality_range_db: that shared range.
        interval: rate_percent's 95 % bootstrap interval over the pictures, or None without figures of each picture.
        num_images: pictures in that bootstrap, or None.
        anchor_lmbdas: of the anchor's points, as far as known.
        test_lmbdas: of the test's points, as far as known.
        num_points: points of anchor and test.
        anchor_source: where the anchor's figures come from.
        test_source: where the test's come from.
        version: of the package that computed it.
    """

    anchor: str
    test: str
    metric: Metric
    method: Method
    rate_percent: float
    psnr_db: float | None
    others: dict[str, float]
    overlap: float
    quality_range_db: tuple[float, float]
    interval: tuple[float, float] | None
    num_images: int | None
    anchor_lmbdas: tuple[float, ...]
    test_lmbdas: tuple[float, ...]
    num_points: tuple[int, int]
    anchor_source: str
    test_source: str
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def bd_rate(anchor: RDCurve, test: RDCurve, method: Method = "pchip", *, metric: Metric = "psnr") -> BDResult:
    """Return the mean difference in rate of `test` against `anchor` over the qualities that both reach.

    Args:
        anchor: what is compared with.
        test: what is in question.
        method: interpolation of log-rate over quality; `pchip` is the standards bodies' (JVET), `cubic` the original
            polynomial fit.
        metric: of the quality.

    Raises:
        BDRefusedError: a curve has fewer than four points, its quality does not rise with its rate, it lacks the
            metric, the curves share less than half of the shorter quality range, or they were measured on different
            pictures.

    Source: Bjøntegaard (2001), VCEG-M33; computed by the package `bjontegaard` (Herglotz et al., 2022, arXiv
    2202.12565).
    """
    where = f"BD-rate of {test.name} against {anchor.name}"
    curves = [_curve(curve, metric, where) for curve in (anchor, test)]
    low, high, overlap = _overlap(curves, where)
    names = _common_pictures(anchor, test, where)
    values: dict[str, float] = {each: _delta("bd_rate", curves, each) for each in METHODS}
    rates = [curve[0] for curve in curves]
    shared_rate = min(rate[-1] for rate in rates) > max(rate[0] for rate in rates)
    quality = _delta("bd_psnr", curves, method) if shared_rate else None
    interval = _interval(anchor, test, names, method, metric) if names else None
    return BDResult(
        anchor=anchor.name,
        test=test.name,
        metric=metric,
        method=method,
        rate_percent=values[method],
        psnr_db=quality,
        others={each: value for each, value in values.items() if each != method},
        overlap=overlap,
        quality_range_db=(low, high),
        interval=interval,
        num_images=len(names) if interval else None,
        anchor_lmbdas=anchor.lmbdas,
        test_lmbdas=test.lmbdas,
        num_points=(len(anchor.points), len(test.points)),
        anchor_source=anchor.source,
        test_source=test.source,
        version=f"bjontegaard {metadata.version('bjontegaard')}",
    )


def _curve(curve: RDCurve, metric: Metric, where: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rate and quality of the curve, checked."""
    if len(curve.points) < MIN_POINTS:
        lmbdas = f" (lambda {', '.join(f'{lmbda:g}' for lmbda in curve.lmbdas)})" if curve.lmbdas else ""
        raise BDRefusedError(
            f"{where}: expected at least {MIN_POINTS} points of each, got {len(curve.points)} of {curve.name}{lmbdas}; "
            "train it at more lambdas, and until then compare RD costs at equal lambda."
        )
    qualities = [point.quality_db(metric) for point in curve.points]
    if any(quality is None or not math.isfinite(quality) for quality in qualities):
        raise BDRefusedError(
            f"{where}: expected a finite {metric} at every point of {curve.name}, got {qualities}; measure it, or take "
            "the other metric."
        )
    rate = np.array([point.rate_bpp for point in curve.points])
    quality = np.array(qualities, dtype=float)
    if not (np.diff(quality) > 0).all() or not (np.diff(rate) > 0).all():
        raise BDRefusedError(
            f"{where}: expected quality to rise with rate, got {metric} {', '.join(f'{q:.2f}' for q in quality)} dB at "
            f"{', '.join(f'{r:.3f}' for r in rate)} bpp of {curve.name}; a model there is not trained enough, or its "
            "point is a mistake: leave it out."
        )
    return rate, quality


def _overlap(curves: Sequence[tuple[NDArray[Any], NDArray[Any]]], where: str) -> tuple[float, float, float]:
    low, high = max(quality[0] for _, quality in curves), min(quality[-1] for _, quality in curves)
    overlap = max(0.0, high - low) / min(quality[-1] - quality[0] for _, quality in curves)
    if overlap < MIN_OVERLAP:
        (_, anchor), (_, test) = curves
        raise BDRefusedError(
            f"{where}: expected the curves to share at least {MIN_OVERLAP:.0%} of the shorter quality range, got "
            f"{overlap:.0%} ({anchor[0]:.2f} to {anchor[-1]:.2f} dB against {test[0]:.2f} to {test[-1]:.2f} dB); "
            "choose lambdas or qualities whose ranges meet."
        )
    return float(low), float(high), float(overlap)


def _common_pictures(anchor: RDCurve, test: RDCurve, where: str) -> list[str]:
    if not anchor.per_image or not test.per_image:
        return []
    if missing := sorted(anchor.per_image.keys() ^ test.per_image.keys()):
        raise BDRefusedError(
            f"{where}: expected both on the same pictures, got {len(anchor.per_image)} and {len(test.per_image)}, of "
            f"which {missing[0]} is not in both; measure them on the same folder."
        )
    return list(anchor.per_image)


def _delta(
    kind: Literal["bd_rate", "bd_psnr"], curves: Sequence[tuple[NDArray[Any], NDArray[Any]]], method: str
) -> float:
    import bjontegaard  # here, since it imports matplotlib

    compute: Any = getattr(bjontegaard, kind)
    (rate, quality), (test_rate, test_quality) = curves
    options = {"method": method, "require_matching_points": False, "min_overlap": 0}  # both are checked above
    return float(compute(rate, quality, test_rate, test_quality, **options))


def _interval(
    anchor: RDCurve, test: RDCurve, names: Sequence[str], method: Method, metric: Metric
) -> tuple[float, float] | None:
    """Return the percentile interval of BD-rates on pictures drawn with replacement, the same for both curves.

    None where there are fewer than two pictures, one has no finite quality, or more than one draw in twenty gives
    curves that cannot be compared. Seeded: the same figures give the same interval.
    """
    if len(names) < 2:
        return None
    tables = [_table(curve, names, metric) for curve in (anchor, test)]
    if not all(np.isfinite(table).all() for table in tables):
        return None
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(_NUM_RESAMPLES):
        rows = generator.integers(0, len(names), len(names))
        means = [table[rows].mean(axis=0) for table in tables]
        curves = [(rate, quality if metric == "psnr" else -10 * np.log10(1 - quality)) for rate, quality in means]
        if _comparable(curves):
            drawn.append(_delta("bd_rate", curves, method))
    if len(drawn) < 0.95 * _NUM_RESAMPLES:
        return None
    low, high = np.quantile(drawn, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def _table(curve: RDCurve, names: Sequence[str], metric: Metric) -> NDArray[Any]:
    """Return shape (pictures, 2, points): rate and PSNR in dB or linear MS-SSIM, which is how each is averaged."""
    quality = "psnr_db" if metric == "psnr" else "ms_ssim"
    return np.array(
        [[[getattr(p, key) for p in curve.per_image[name]] for key in ("rate_bpp", quality)] for name in names],
        dtype=float,
    )


def _comparable(curves: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> bool:
    rising = all((np.diff(rate) > 0).all() and (np.diff(quality) > 0).all() for rate, quality in curves)
    return rising and min(quality[-1] for _, quality in curves) > max(quality[0] for _, quality in curves)
