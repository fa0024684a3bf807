"""Rate-distortion curves: one codec at several qualities, read from and written to files.

The file format is CompressAI's: `{"name", "description", "results": {"bpp": [...], "psnr-rgb": [...], ...}}`, one entry
a quality. What a list there cannot hold (lambdas, the single pictures) is in keys that distillkit adds, which
CompressAI's tools pass over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from ..errors import DataError

Metric = Literal["psnr", "ms-ssim"]

# What is read -> its names in files, ours (CompressAI's) first.
_KEYS = {
    "rate_bpp": ("bpp", "rate_bpp", "bpp-rgb"),
    "psnr_db": ("psnr-rgb", "psnr", "psnr_db"),
    "ms_ssim": ("ms-ssim-rgb", "ms-ssim", "ms_ssim", "ms-ssim-db-rgb", "ms-ssim-db"),
    "lmbda": ("lambda", "lmbda"),
    "encode_seconds": ("encoding_time", "encode_seconds"),
    "decode_seconds": ("decoding_time", "decode_seconds"),
    "rd_cost": ("rd_cost",),
}


@final
@dataclass(frozen=True)
class RDPoint:
    """One quality of a codec; means over pictures, or one picture.

    Attributes:
        rate_bpp: bits per pixel.
        psnr_db: in dB (a mean is that of the pictures' PSNR), or None where only MS-SSIM is known.
        ms_ssim: linear, in [0, 1], or None.
        lmbda: the trade-off that the model was trained for, or None.
        encode_seconds: per picture, or None.
        decode_seconds: per picture, or None.
        rd_cost: lmbda * 255^2 * MSE + bpp, or None.
    """

    rate_bpp: float
    psnr_db: float | None
    ms_ssim: float | None = None
    lmbda: float | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    rd_cost: float | None = None

    @property
    def ms_ssim_db(self) -> float | None:
        """MS-SSIM as -10 log10(1 - MS-SSIM), in dB."""
        if self.ms_ssim is None:
            return None
        return -10 * math.log10(1 - self.ms_ssim) if self.ms_ssim < 1 else math.inf

    def quality_db(self, metric: Metric) -> float | None:
        """Return the quality in dB by this metric, or None where it was not measured."""
        return self.psnr_db if metric == "psnr" else self.ms_ssim_db


@final
@dataclass(frozen=True)
class RDCurve:
    """A codec at several qualities, measured on one set of pictures.

    Attributes:
        name: of the codec.
        points: means over the pictures, by rising rate (sorted here).
        per_image: picture -> its points, in the order of `points`; empty where only means are known.
        source: where the figures come from: a file, a codec's version, settings.
    """

    name: str
    points: tuple[RDPoint, ...]
    per_image: Mapping[str, tuple[RDPoint, ...]] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Sort the points by rate, and those of the pictures with them."""
        if strange := [name for name, points in self.per_image.items() if len(points) != len(self.points)]:
            raise DataError(
                f"curve {self.name}: expected {len(self.points)} points of every picture, got "
                f"{len(self.per_image[strange[0]])} of {strange[0]}; measure all qualities on the same pictures."
            )
        order = sorted(range(len(self.points)), key=lambda index: self.points[index].rate_bpp)
        object.__setattr__(self, "points", tuple(self.points[index] for index in order))
        sorted_images = {name: tuple(points[index] for index in order) for name, points in self.per_image.items()}
        object.__setattr__(self, "per_image", sorted_images)

    @property
    def lmbdas(self) -> tuple[float, ...]:
        """The trade-offs of the points that have one, in their order."""
        return tuple(point.lmbda for point in self.points if point.lmbda is not None)

    def to_json(self) -> str:
        """Return the curve in CompressAI's result format, with the pictures under `images`."""
        content: dict[str, Any] = {
            "name": self.name,
            "description": self.source,
            "results": _columns(self.points),
        }
        if self.per_image:
            content["images"] = {name: _columns(points) for name, points in self.per_image.items()}
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write `to_json` to a file; folders are made.

        Raises:
            DataError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise DataError(f"curve {path}: cannot be written: {error.strerror}; choose another folder.") from None


def curve_from_results(name: str, results: Sequence[Mapping[str, Any]], source: str = "") -> RDCurve:
    """Return the curve of several models, one per quality.

    Args:
        name: of the codec.
        results: what `Evaluation.to_json` holds, one per model, all on the same pictures.
        source: where the figures come from.

    Raises:
        DataError: the models were not measured on the same pictures, or these are no results of an evaluation.
    """
    if not all(is_evaluation(result) for result in results):
        raise DataError(
            f"curve {name}: expected results as `distillkit evaluate` writes them, got others; measure again."
        )
    names = [[image["name"] for image in result["images"]] for result in results]
    if any(each != names[0] for each in names):
        raise DataError(
            f"curve {name}: expected every model to be measured on the same pictures, got {_short(names[0])} and "
            f"{_short(next(each for each in names if each != names[0]))}; measure them with one command."
        )
    points = [_result_point(result["averages"], result["lmbda"]) for result in results]
    per_image = {
        image: tuple(_result_point(result["images"][index], result["lmbda"]) for result in results)
        for index, image in enumerate(names[0])
    }
    return RDCurve(name, tuple(points), per_image, source)


def read_curve(path: str | Path, name: str | None = None) -> RDCurve:
    """Read a curve from a file in CompressAI's result format, or from the `results.json` of one evaluation.

    Keys of other tools are taken too: `psnr` for `psnr-rgb`, `ms-ssim` for `ms-ssim-rgb`, the lists without `results`
    around them. MS-SSIM is taken as dB where its key says so, or where a value is above 1.

    Args:
        path: the file.
        name: of the curve; by default the one in the file, or the file's.

    Raises:
        DataError: the file cannot be read, or holds no curve; says what is missing.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"curve {path}: cannot be read: {error.strerror}; check the path.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"curve {path}: expected JSON, got {error}; check that it is a file of results.") from None
    if not isinstance(content, dict):
        raise DataError(
            f"curve {path}: expected a JSON object, got {type(content).__name__}; check that it is a file of results."
        )
    name = name or str(content.get("name") or path.stem)
    if "averages" in content and isinstance(content.get("images"), list):
        return curve_from_results(name, [content], str(path))
    where = f"curve {path}"
    points = _points(content.get("results", content), where)
    images = content.get("images") or {}
    if not isinstance(images, dict):
        raise DataError(
            f"{where}: expected the lists of each picture by its name under 'images', got {type(images).__name__}; "
            "leave them out, or measure again."
        )
    per_image = {image: _points(columns, f"{where}: {image}") for image, columns in images.items()}
    description = str(content.get("description") or "")
    source = f"{path.name}: {description}" if description else path.name
    return RDCurve(name, points, per_image, source)


def is_evaluation(result: Any) -> bool:
    """Return whether `result` is what `Evaluation.to_json` wrote, as far as curves need it."""
    if not isinstance(result, Mapping):
        return False
    images = result.get("images")
    if not isinstance(images, list) or "lmbda" not in result:
        return False
    rows: list[Any] = [result.get("averages"), *images]
    with_rates = all(isinstance(row, Mapping) and isinstance(row.get("rate_bpp"), int | float) for row in rows)
    return with_rates and all("name" in row for row in images)


def _points(columns: Any, where: str) -> tuple[RDPoint, ...]:
    if not isinstance(columns, Mapping):
        raise DataError(
            f"{where}: expected lists by name under 'results', got {type(columns).__name__}; check that it is a file "
            "of results."
        )
    found = {key: _column(columns, names, where) for key, names in _KEYS.items()}
    rates = found["rate_bpp"]
    if rates is None or (found["psnr_db"] is None and found["ms_ssim"] is None):
        missing = "'bpp'" if rates is None else "'psnr-rgb' or 'ms-ssim-rgb'"
        raise DataError(
            f"{where}: expected a list {missing}, got {', '.join(map(repr, columns)) or 'nothing'}; check that it is a "
            "file of results."
        )
    if any(rate is None or rate <= 0 for rate in rates):
        raise DataError(f"{where}: expected bits per pixel above 0 at every point, got {rates}; leave out the others.")
    for key, values in found.items():
        if values is not None and len(values) != len(rates):
            raise DataError(
                f"{where}: expected {len(rates)} values of {key}, as of bpp, got {len(values)}; make them equal."
            )
    rows = [{key: values and values[index] for key, values in found.items()} for index in range(len(rates))]
    return tuple(RDPoint(**row) for row in rows)  # type: ignore[arg-type]


def _column(columns: Mapping[str, Any], names: Sequence[str], where: str) -> list[float | None] | None:
    name = next((name for name in names if name in columns), None)
    if name is None:
        return None
    values = columns[name] if isinstance(columns[name], list) else [columns[name]]
    if not all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in values):
        raise DataError(f"{where}: expected finite numbers in {name!r}, got {values}; leave out what is not known.")
    if name.startswith(("ms-ssim", "ms_ssim")) and ("db" in name or any(value and value > 1 for value in values)):
        return [None if value is None else 1 - 10 ** (-value / 10) for value in values]
    if all(value is None for value in values):
        return None
    return values


def _columns(points: Sequence[RDPoint]) -> dict[str, list[float]]:
    columns = {names[0]: [getattr(point, key) for point in points] for key, names in _KEYS.items()}
    return {name: values for name, values in columns.items() if _all_finite(values)}


def _all_finite(values: Sequence[float | None]) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def _result_point(row: Mapping[str, Any], lmbda: float | None) -> RDPoint:
    keys = ("rate_bpp", "psnr_db", "ms_ssim", "encode_seconds", "decode_seconds", "rd_cost")
    return RDPoint(**{key: row.get(key) for key in keys}, lmbda=lmbda)  # type: ignore[arg-type]


def _short(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
