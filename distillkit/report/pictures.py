"""The pictures of a page: which ones, which pieces of them, and how they fit into it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.images import read_image
from ..data.samples import Samples
from ..evaluation.curve import Metric
from ..evaluation.quality import psnr_db
from .runs import Run, Runs

WINDOW = (768, 512)  #: largest picture on the page: longer and shorter side; of a larger one a window is shown
PIECE = 96  #: side of a zoomed piece, in pixels
NUM_PIECES = 2
_MAX_BYTES = 180_000  # of one picture; 12 of them are 2.9 MB in base64
_QUALITIES = (92, 86, 78, 65, 40)
# Dark to light, for maps: from a deep blue to a pale yellow, lightness rising evenly.
_RAMP = np.array([[13, 22, 46], [27, 58, 107], [41, 105, 139], [98, 153, 150], [176, 195, 150], [252, 235, 176]], float)


@final
@dataclass(frozen=True)
class View:
    """One version of a picture.

    Attributes:
        series: `original`, `teacher`, `control` or `student`.
        label: what it is called on the page.
        data: the window as a data URI.
        rate_bpp: of the compressed file, or None for the original.
        psnr_db: of the whole decoded picture, or None.
        ms_ssim_db: of the whole decoded picture, or None.
        pieces: the zoomed pieces as data URIs.
        piece_psnr_db: PSNR of each piece, empty for the original.
    """

    series: str
    label: str
    data: str
    rate_bpp: float | None
    psnr_db: float | None
    ms_ssim_db: float | None
    pieces: tuple[str, ...]
    piece_psnr_db: tuple[float, ...]


@final
@dataclass(frozen=True)
class Picture:
    """A picture, its versions, and the places of its pieces.

    Attributes:
        name: of the picture.
        why: why it was chosen.
        width: of what is shown, in pixels.
        height: of what is shown, in pixels.
        is_window: whether only a part of it is shown.
        views: the original first.
        places: left, top, width, height of each piece in per cent of what is shown.
        source: the original.
        samples: of the original; what `Samples.preview` shows of it is in the views.
    """

    name: str
    why: str
    width: int
    height: int
    is_window: bool
    views: tuple[View, ...]
    places: tuple[tuple[float, float, float, float], ...]
    source: Path
    samples: Samples


def choose(runs: Runs) -> list[tuple[str, str]]:
    """Return name and reason of the pictures to show: where the student does worst, in the middle and best.

    That is by the quality that it was trained for, against the teacher's, or alone without a teacher that was measured
    on the same pictures.
    """
    ours, theirs = _qualities(runs.main, runs.metric), _qualities(runs.teacher, runs.metric)
    shared = [name for name in ours if name in theirs]
    marks = {name: ours[name] - theirs[name] for name in shared} if shared else ours
    order = sorted(marks, key=lambda name: marks[name])
    if shared and order:
        worst = "falls furthest behind" if marks[order[0]] < 0 else "is least ahead of"
        best = "is furthest ahead of" if marks[order[-1]] > 0 else "is least behind"
        first, last = f"where it {worst} the teacher", f"where it {best} the teacher"
    else:
        first, last = f"lowest {runs.metric.upper()}", f"highest {runs.metric.upper()}"
    words = {0: first, len(order) // 2: "in the middle", len(order) - 1: last}
    sign = "+" if shared else ""
    marked = {place: f"{marks[order[place]]:{sign}.2f} dB".replace("-", "\N{MINUS SIGN}") for place in words if order}
    return [(order[place], f"{word}, {marked[place]}") for place, word in words.items() if order]


def show(name: str, why: str, shown: Sequence[tuple[str, str, Run]]) -> Picture | None:
    """Make one picture ready for the page; None where its original or a decoded version is not there any more.

    Args:
        name: of the picture in the results.
        why: why it was chosen.
        shown: series, label and run of each version; the pieces are where the first and the last differ most.
    """
    source, samples = Path(_result(shown[-1][2], name)["source"]), _samples(shown[-1][2])
    files = [source, *(run.decoded / f"{name}{samples.suffix}" for _, _, run in shown if run.decoded)]
    if len(files) <= len(shown) or not all(file.is_file() for file in files):
        return None
    versions = [read_image(file, samples=samples) for file in files]
    if len({version.shape for version in versions}) > 1:
        return None
    other = versions[1] if len(versions) > 2 else versions[0]
    differing = np.abs(versions[-1].astype(float) - other).mean(axis=2)
    top, left, height, width = _window(differing)
    pieces = _pieces(differing[top : top + height, left : left + width])
    views = []
    for (series, label, run), version in zip([("original", "original", None), *shown], versions, strict=True):
        part = version[top : top + height, left : left + width]
        original = versions[0][top : top + height, left : left + width]
        cut = [part[y : y + PIECE, x : x + PIECE] for y, x in pieces]
        truth = [original[y : y + PIECE, x : x + PIECE] for y, x in pieces]
        result = _result(run, name) if run else None
        views.append(
            View(
                series,
                label,
                _encoded(samples.preview(part)),
                result["rate_bpp"] if result else None,
                result["psnr_db"] if result else None,
                result.get("ms_ssim_db") if result else None,
                tuple(_lossless(samples.preview(piece)) for piece in cut),
                tuple(psnr_db(a, b, samples.peak) for a, b in zip(truth, cut, strict=True)) if run else (),
            )
        )
    places = tuple(
        (100 * x / width, 100 * y / height, 100 * min(PIECE, width - x) / width, 100 * min(PIECE, height - y) / height)
        for y, x in pieces
    )
    whole = (height, width) != versions[0].shape[:2]
    return Picture(name, why, width, height, whole, tuple(views), places, source, samples)


def heat_map(values: NDArray[Any], top: float) -> str:
    """Return values from 0 to `top`, shape (h, w), as a picture in a data URI, one pixel per value."""
    place = np.clip(values / top, 0, 1) * (len(_RAMP) - 1)
    low = np.minimum(place.astype(int), len(_RAMP) - 2)
    colours = _RAMP[low] + (place - low)[..., None] * (_RAMP[low + 1] - _RAMP[low])
    buffer = io.BytesIO()
    Image.fromarray(colours.round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return _uri(buffer, "png")


def ramp() -> str:
    """Return the colours of `heat_map` as stops of a CSS gradient, from 0 to `top`."""
    return ", ".join("#{:02x}{:02x}{:02x}".format(*(int(part) for part in colour)) for colour in _RAMP)


def _qualities(run: Run | None, metric: Metric) -> dict[str, float]:
    if run is None or not run.results:
        return {}
    key = "psnr_db" if metric == "psnr" else "ms_ssim_db"
    return {image["name"]: image[key] for image in run.results["images"] if image.get(key) is not None}


def _samples(run: Run) -> Samples:
    assert run.results is not None
    return Samples(**run.results.get("samples", {}))


def _result(run: Run, name: str) -> Mapping[str, Any]:
    assert run.results is not None
    return next(image for image in run.results["images"] if image["name"] == name)


def _window(differing: NDArray[Any]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part to show: all, or the window in which most differs."""
    height, width = differing.shape
    long, short = WINDOW
    size = (min(height, short), min(width, long)) if width >= height else (min(height, long), min(width, short))
    if size == (height, width):
        return 0, 0, height, width
    top, left = _highest(_box_means(differing, size))
    return top, left, *size


def _pieces(differing: NDArray[Any]) -> list[tuple[int, int]]:
    """Return top and left of the pieces in which most differs, apart from one another."""
    means = _box_means(differing, (min(PIECE, differing.shape[0]), min(PIECE, differing.shape[1])))
    places: list[tuple[int, int]] = []
    while len(places) < NUM_PIECES and np.isfinite(means).any():
        top, left = _highest(means)
        places.append((top, left))
        means[max(0, top - PIECE) : top + PIECE, max(0, left - PIECE) : left + PIECE] = -np.inf
    return places


def _box_means(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    sums = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    h, w = size
    return (sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]) / (h * w)


def _highest(values: NDArray[Any]) -> tuple[int, int]:
    top, left = np.unravel_index(int(values.argmax()), values.shape)
    return int(top), int(left)


def _encoded(picture: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "WEBP", quality=quality, method=4)
        if buffer.tell() <= _MAX_BYTES:
            break
    return _uri(buffer, "webp")


def _lossless(picture: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "WEBP", lossless=True)
    return _uri(buffer, "webp")


def _uri(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
