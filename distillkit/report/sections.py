"""The other parts of a page: pictures, training, and what the codecs do inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..codec.runtime import ImageCodec
from ..data.images import read_image
from ..errors import DistillkitError
from ..evaluation.bits import bits_by_channel, bits_by_position, load_crops
from ..evaluation.same_files import psnr_lost_db, reads_files_of, usual_quality
from ..hooks.loader import Plugins
from ..model.file import model_name
from . import inside, plots, plots_inside
from .codecs import Codecs, Side
from .pictures import Picture, choose, heat_map, ramp, show
from .runs import Run, Runs
from .speed import CodingTime, coding_time

NUM_SAME_FILES = 8  #: of the teacher, on which a light decoder is compared with it
_SHOWN_TAPS = ("analysis", "latent", "synthesis", "hyper")


def picture_section(runs: Runs) -> list[Picture]:
    """Return the pictures to show; none where nothing was measured or the files are gone."""
    if not runs.main.results:
        return []
    measured = [("teacher", "teacher", runs.teacher), ("control", "control", runs.control)]
    names = {image["name"] for image in runs.main.results["images"]}
    shown: list[tuple[str, str, Run]] = [
        (series, label, run)
        for series, label, run in measured
        if run and run.results and names <= {image["name"] for image in run.results["images"]}
    ]
    main = "teacher" if runs.main.variant == "teacher" else "student"
    shown.append((main, runs.main.variant, runs.main))
    return [picture for name, why in choose(runs) if (picture := show(name, why, shown))]


def training_section(runs: Runs) -> dict[str, Any] | None:
    """Return the plots of the training, or None without metrics."""
    main = "teacher" if runs.main.variant == "teacher" else "student"
    runs_shown = [("control", "control", runs.control), (runs.main.variant, main, runs.main)]
    curves = [(label, series, run.metrics) for label, series, run in runs_shown if run and run.metrics]
    if not runs.main.metrics:
        return None
    last, start = runs.main.metrics[-1], runs.main.recipe.initial_weights
    return {
        "start": model_name(start) if isinstance(start, Path) else None if start == "random" else "its teacher",
        "curve": plots.training(curves),
        "losses": plots.losses(runs.main.metrics),
        "validation": _validation(runs_shown, runs),
        "steps": last["step"],
        "done": last["step"] >= runs.main.recipe.num_steps,
        "seconds_per_step": last["seconds_per_step"],
    }


def _validation(shown: Sequence[tuple[str, str, Run | None]], runs: Runs) -> dict[str, Any] | None:
    settings = runs.main.recipe.validation
    if settings is None or not runs.main.validation:
        return None
    curves = [(label, series, run.validation) for label, series, run in shown if run and run.validation]
    return {"plot": plots.validation(curves), "num_crops": settings.crops, "saved": settings.save}


def codec_sections(
    runs: Runs, codecs: Codecs, pictures: list[Picture], plugins: Plugins, on_part: Callable[[str], None]
) -> dict[str, Any]:
    """Return what the codecs themselves show: ranking, alignment, bits, size and speed."""
    notes = list(codecs.notes)
    sources = _sources(runs)
    if runs.main.results and not sources:
        notes.append("The originals of the measured pictures are not where they were, so nothing is measured on them.")
    on_part("alignment of the taps")
    aligned, kept = _alignment(runs, codecs, sources, plugins, notes)
    on_part("bits")
    bits = _bits(codecs, sources, pictures)
    on_part("coding times")
    return {
        "notes": notes,
        "rankings": _rankings(runs, kept),
        "alignment": aligned,
        "bits": bits,
        "size": _size(codecs),
        "speed": _speed(codecs, sources),
    }


def _sources(runs: Runs) -> list[Path]:
    """Return the measured pictures that are still where they were."""
    images = runs.main.results["images"] if runs.main.results else []
    return [path for image in images if (path := Path(image["source"])).is_file()]


def _rankings(runs: Runs, kept: dict[str, list[int]]) -> list[dict[str, Any]]:
    rows = []
    for term, record in runs.main.calibration.items():
        bits = record.get("bits_per_pixel")
        if not isinstance(bits, list) or not bits or not sum(bits) > 0:
            continue
        chosen = kept.get(term)
        rows.append(
            {
                "term": term,
                "plot": plots_inside.ranking(bits, chosen),
                "num": len(bits),
                "num_kept": None if chosen is None else len(chosen),
                "share": None if chosen is None else sum(bits[channel] for channel in chosen) / sum(bits),
                "total": sum(bits),
            }
        )
    return rows


def _alignment(
    runs: Runs, codecs: Codecs, sources: list[Path], plugins: Plugins, notes: list[str]
) -> tuple[Any, dict[str, list[int]]]:
    student, teacher = codecs.student, codecs.teacher
    if student is None or teacher is None:
        return None, {}
    recipe = runs.main.recipe
    stride = max(student.model.codec.stride, teacher.model.codec.stride)
    sides, roles, kept, num_images = [], [], {}, 0
    for side in (codecs.control, student):
        if side is None:
            continue
        try:
            pair, shapes = inside.bind(teacher.model, side.model, recipe, plugins)
        except DistillkitError as error:
            notes.append(f"The taps of {side.label} and teacher cannot be compared: {error}")
            return None, kept
        if side is student:
            kept = inside.kept_channels(recipe, shapes, runs.main.calibration, plugins)
        roles = roles or [role for role in shapes.student if role.startswith(_SHOWN_TAPS)]
        shown = [role for role in roles if role in shapes.student]
        crops = load_crops(sources, stride, student.model.codec.samples)
        shares, num_images = inside.explained_variance(pair, shown, crops)
        sides.append((side.label, side.series, shares))
    taps = [role for role in roles if all(role in shares for _, _, shares in sides)]
    taps.sort(key=lambda role: (_SHOWN_TAPS.index(next(s for s in _SHOWN_TAPS if role.startswith(s))), _depth(role)))
    if not taps:
        return None, kept
    return {"plot": plots_inside.alignment(taps, sides), "num_images": num_images}, kept


def _depth(role: str) -> float:
    """Return the place of a tap in its transform: the analysis runs from fine to coarse, the synthesis back."""
    try:
        factor = float(role.rpartition("/")[2])
    except ValueError:
        return 0
    return -factor if role.startswith("synthesis") else factor


def _bits(codecs: Codecs, sources: list[Path], pictures: list[Picture]) -> dict[str, Any] | None:
    sides = []
    for side in codecs.all:
        codec = side.model.codec
        found = bits_by_channel(codec, load_crops(sources, codec.stride, codec.samples))
        if found:
            sides.append((side.label, side.series, found.by_channel))
    if not sides:
        return None
    return {"plot": plots_inside.channels(sides), "maps": _maps(codecs, pictures), "ramp": ramp()}


def _maps(codecs: Codecs, pictures: list[Picture]) -> list[dict[str, Any]]:
    rows = []
    for picture in pictures:
        original = read_image(picture.source, samples=picture.samples)
        found: list[tuple[Side, NDArray[Any]]] = []
        for side in codecs.all:
            bits = bits_by_position(side.model.codec, original)
            if bits is not None:
                found.append((side, bits))
        if found:
            top = float(np.quantile(np.concatenate([bits.ravel() for _, bits in found]), 0.99)) or 1.0
            views = [(side.series, side.label, heat_map(bits, top), float(bits.mean())) for side, bits in found]
            rows.append({"name": picture.name, "top": top, "views": views, "shape": original.shape[:2]})
    return rows


def _size(codecs: Codecs) -> Any:
    sides = [side for side in codecs.all if side.series != "control" or codecs.teacher is None]
    if not sides:
        return None
    rows = [
        (side.label, side.series, [(part, count / 1e6) for part, count in side.parameters.items() if count])
        for side in sides
    ]
    compute = [(side.label, side.series, [("", side.kmac_per_pixel)]) for side in sides]
    return {"parameters": plots_inside.stacked(rows, "M", 2), "compute": plots_inside.stacked(compute, "kMAC/px", 0)}


def _speed(codecs: Codecs, sources: list[Path]) -> Any:
    if not sources or not codecs.all:
        return None
    picture = read_image(sources[0], samples=codecs.all[0].model.codec.samples)
    encode, decode = [], []
    lost = _lost_db(codecs, sources[:NUM_SAME_FILES])
    for side in codecs.all:
        if side.series == "control" and codecs.student and codecs.teacher:
            continue
        try:
            timed: CodingTime | None = coding_time(ImageCodec(side.model.codec, side.model.fingerprint), picture)
        except DistillkitError:
            timed = None
        if timed is not None:
            row = (side.label, side.series)
            encode.append((*row, [(part, 1000 * seconds) for part, seconds in timed.encode.items()]))
            decode.append((*row, [(part, 1000 * seconds) for part, seconds in timed.decode.items()]))
    if not encode:
        return None
    return {
        "encode": plots_inside.stacked(encode, "ms", 0),
        "decode": plots_inside.stacked(decode, "ms", 0),
        "size": f"{picture.shape[1]}\N{MULTIPLICATION SIGN}{picture.shape[0]}",
        "threads": torch.get_num_threads(),
        "lost_db": lost,
        "num_files": min(len(sources), NUM_SAME_FILES),
    }


def _lost_db(codecs: Codecs, sources: list[Path]) -> float | None:
    """Return the mean PSNR that a light decoder loses on its teacher's files; None of another codec."""
    if codecs.student is None or codecs.teacher is None:
        return None
    try:
        student, teacher = (ImageCodec(side.model) for side in (codecs.student, codecs.teacher))
    except DistillkitError:
        return None
    if not reads_files_of(student, teacher):
        return None
    lost: list[float] = []
    for path in sources:
        picture = read_image(path, samples=teacher.samples)
        data = teacher.encode(picture, usual_quality(teacher))
        lost.append(psnr_lost_db(teacher, student, data, picture))
    return fmean(lost)
