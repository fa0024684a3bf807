"""Codecs side by side as rate-distortion curves, each with its BD-rate against one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from ..errors import DataError, did_you_mean
from ..hooks.loader import Plugins, load_plugins
from ..model.file import MODEL_NAME, load_model
from ..model.zoo import PREFIX, located
from .bd import BDRefusedError, BDResult, bd_rate
from .classical import classical_codec
from .classical_curve import classical_curve
from .curve import Metric, RDCurve, RDPoint, curve_from_results, read_curve
from .decode import DecodingProcess
from .evaluate import evaluate_model
from .side_by_side import rows_of

METRICS: tuple[Metric, ...] = ("psnr", "ms-ssim")


@final
@dataclass(frozen=True)
class RDComparison:
    """Curves, and what each gains over the anchor.

    Attributes:
        anchor: name of the curve that the others are compared with.
        curves: in the order given.
        bd: BD-rates of the others against the anchor, by PSNR and, where all points have it, by MS-SSIM.
        refused: (curve, metric) -> why it has no BD-rate.
    """

    anchor: str
    curves: tuple[RDCurve, ...]
    bd: tuple[BDResult, ...]
    refused: Mapping[tuple[str, Metric], str]

    def at_equal_lmbda(self, curve: RDCurve) -> list[float | None]:
        """Return for each point its RD cost over the anchor's at the same lambda, minus 1; None without either."""
        anchor = next(each for each in self.curves if each.name == self.anchor)
        costs = {point.lmbda: point.rd_cost for point in anchor.points}

        def against(point: RDPoint) -> float | None:
            reference = costs.get(point.lmbda)
            return None if point.rd_cost is None or reference is None else point.rd_cost / reference - 1

        return [against(point) for point in curve.points]

    def to_json(self) -> str:
        """Return all of it as JSON: the curves' means, the BD-rates, and what was refused."""
        content: dict[str, Any] = {
            "anchor": self.anchor,
            "curves": [
                {"name": curve.name, "source": curve.source, "points": [asdict(point) for point in curve.points]}
                for curve in self.curves
            ],
            "bd": [result.to_dict() for result in self.bd],
            "refused": [{"test": key[0], "metric": key[1], "why": why} for key, why in self.refused.items()],
        }
        return json.dumps(content, indent=1) + "\n"


def compare_curves(curves: Sequence[RDCurve], anchor: str | None = None) -> RDComparison:
    """Compute what each curve gains over the anchor.

    Args:
        curves: with distinct names.
        anchor: name of one of them; by default the first.

    Raises:
        DataError: there is no such curve, or two have one name.
    """
    names = [curve.name for curve in curves]
    if not names:
        raise DataError("comparison: expected at least one curve, got none; name models, results or curves.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"comparison: expected curves with distinct names, got {twice[0]!r} twice; name each once, or change "
            "'name' in one file."
        )
    anchor = anchor or names[0]
    if anchor not in names:
        raise DataError(
            f"comparison: expected the anchor to be one of {', '.join(names)}, got {anchor!r}; correct "
            f"--anchor.{did_you_mean(anchor, names)}"
        )
    reference = curves[names.index(anchor)]
    results: list[BDResult] = []
    refused: dict[tuple[str, Metric], str] = {}
    for curve in curves:
        if curve.name == anchor:
            continue
        for metric in _metrics(reference, curve):
            try:
                results.append(bd_rate(reference, curve, metric=metric))
            except BDRefusedError as error:
                refused[curve.name, metric] = str(error)
    return RDComparison(anchor, tuple(curves), tuple(results), refused)


def curve_of(source: str, curves: Sequence[RDCurve]) -> str:
    """Return the name of the curve that a source became, as `gather_curves` names it; `source` itself without one."""
    path = Path(source)
    if path.suffix == ".json" and path.is_file() and _evaluation(path) is None:
        return read_curve(path).name
    name = _name(path)
    found = [c.name for c in curves if c.name in {name, *(_without_lmbda(name, lmbda) for lmbda in c.lmbdas)}]
    return found[0] if found else source


def _metrics(anchor: RDCurve, test: RDCurve) -> tuple[Metric, ...]:
    """Return the metrics that all points of both have; PSNR where there is none, so that its refusal says why."""
    points = (*anchor.points, *test.points)
    return tuple(m for m in METRICS if all(point.quality_db(m) is not None for point in points)) or ("psnr",)


def gather_curves(
    sources: Sequence[str | Path],
    out: Path,
    *,
    images: Sequence[Path] = (),
    classical: Sequence[str] = (),
    plugins: Plugins | None = None,
    on_codec: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> list[RDCurve]:
    """Return the curves of models, results and files of curves; measure the models on `images`.

    Models whose names differ only in their lambda (`feds-0.013-seed0`, `feds-0.025-seed0`) are one curve
    (`feds-seed0`); a model of many rates is a curve by itself. A source is a run folder, a model file, the folder or
    `results.json` of an evaluation, a folder of any of these, or a JSON file with a curve in CompressAI's format.

    Args:
        sources: what to compare.
        out: gets a folder for each model's files, and the curves in `curves/`, in CompressAI's format.
        images: pictures on which models and classical codecs are measured.
        classical: names of classical codecs, see `CLASSICAL`.
        plugins: where the models' pairs are registered; by default the installed plugins.
        on_codec: called with each codec's name before it is measured.
        device: where models run, see `load_model`.

    Raises:
        DistillkitError: a source is none of these, or cannot be measured.
    """
    models, measured, curves = _sort_out(sources)
    plugins = plugins or load_plugins()
    if (models or classical) and not images:
        wanted = ", ".join([*models, *classical])
        raise DataError(f"comparison: expected pictures to measure {wanted} on, got none; name a folder with --data.")
    coders = [classical_codec(name) for name in classical]  # report what is not installed before hours of measuring
    with DecodingProcess() as process:
        for name, path in models.items():
            if on_codec is not None:
                on_codec(name)
            for row, quality in rows_of(name, load_model(path, plugins).codec):
                options = {"plugins": plugins, "process": process, "quality": quality, "device": device}
                evaluation = evaluate_model(path, images, out / row, **options)  # type: ignore[arg-type]
                measured.append((row, json.loads(evaluation.to_json())))
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, result in measured:
        quality = result.get("quality")
        name = name if quality is None else name.removesuffix(f"-q{quality:g}")
        groups.setdefault(_without_lmbda(name, result["lmbda"]), []).append(result)
    for name, results in groups.items():
        lmbdas = [result["lmbda"] for result in results]
        if len(set(lmbdas)) < len(lmbdas):
            raise DataError(
                f"curve {name}: expected one model for each lambda, got lambdas {', '.join(map(str, lmbdas))}; "
                "rename the folders of what are different codecs."
            )
        environment = results[0].get("environment", {})
        versions = [f"{key} {value}" for key, value in environment.items()]
        curves.append(curve_from_results(name, results, ", ".join(versions)))
    for coder in coders:
        if on_codec is not None:
            on_codec(coder.title)
        curves.append(classical_curve(coder, images))
    for curve in curves:
        curve.save(out / "curves" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', curve.name)}.json")
    return curves


def _sort_out(
    sources: Sequence[str | Path],
) -> tuple[dict[str, Path], list[tuple[str, dict[str, Any]]], list[RDCurve]]:
    """Return models by name, results by name, and curves."""
    found: list[Path] = []
    measured: list[tuple[str, dict[str, Any]]] = []
    curves: list[RDCurve] = []
    for path in map(Path, sources):
        if path.is_dir() and not _is_leaf(path):
            inside = sorted(each for each in path.iterdir() if _is_leaf(each))
        else:
            inside = [path] if path.suffix == ".json" or located(path).exists() else []
        if not inside:
            got = "a folder without" if path.is_dir() else "nothing there"
            raise DataError(
                f"comparison: {path}: expected a run folder or results of an evaluation, or a folder of these, got "
                f"{got}; check the path, and whether the runs are done."
            )
        for each in inside:
            file = each / "results.json" if each.is_dir() and not (each / MODEL_NAME).is_file() else each
            if file.suffix != ".json":
                found.append(each)
            elif (result := _evaluation(file)) is not None:
                measured.append((file.parent.resolve().name, result))
            else:
                curves.append(read_curve(file))
    names = [_name(path) for path in found]
    distinct = [n if names.count(n) == 1 else f"{index}-{n}" for index, n in enumerate(names, 1)]
    return dict(zip(distinct, found, strict=True)), measured, curves


def _name(path: Path) -> str:
    return (path.parent if path.is_file() else path).resolve().name.removeprefix(PREFIX)


def _is_leaf(path: Path) -> bool:
    return (path / MODEL_NAME).is_file() or (path / "results.json").is_file()


def _evaluation(path: Path) -> dict[str, Any] | None:
    """Return what `Evaluation.to_json` wrote, or None where the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # read_curve says what is wrong
    is_one = isinstance(content, dict) and {"averages", "images", "lmbda"} <= content.keys()
    return content if is_one else None


def _without_lmbda(name: str, lmbda: float | None) -> str:
    if lmbda is None:
        return name
    return re.sub(rf"(^|[-_]){re.escape(f'{lmbda:g}')}(?=[-_]|$)", "", name, count=1).strip("-_") or name
