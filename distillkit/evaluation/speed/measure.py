"""Measure a student on a user's pictures, beside its teacher and classical codecs at the same quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from numpy.typing import NDArray

from ...codec.fast.codec import Precision
from ...codec.runtime import ImageCodec
from ...data.images import check_images, read_image
from ...data.samples import RGB
from ...errors import DataError
from ...hooks.loader import Plugins, load_plugins
from ...model.complexity import kmac_per_pixel, num_parameters, parameters_by_part
from ...model.conditioned import at_quality
from ...model.device import find_device
from ...model.file import load_model
from ...model.precision import bf16_is_fast
from ..classical import ClassicalCodec, MissingCodecError, classical_codec
from ..quality import psnr_db
from ..same_files import psnr_lost_db, reads_files_of, usual_quality
from .equal_quality import Match, match_psnr
from .machine import this_machine
from .memory import measure_memory
from .result import STUDENT, TEACHER, Bench, BenchedClassical, BenchedModel, CodedImage
from .timing import Coder, Direction, Latency, Run, Timed, time_by_turns, torch_threads, warm_up

#: What the runtime's parts are called here, by direction.
_PARTS: dict[Direction, dict[str, str]] = {
    "encode": {"transform": "analysis", "entropy network": "entropy networks"},
    "decode": {"transform": "synthesis", "entropy network": "entropy networks"},
}

_RGB_ONLY = "it codes only 8-bit RGB here."


@dataclass
class _Column:
    """What is gathered of one codec, picture by picture."""

    images: list[CodedImage] = field(default_factory=list)
    runs: dict[Direction, list[Run]] = field(default_factory=lambda: {"encode": [], "decode": []})

    def add(self, image: CodedImage, timed: Timed) -> None:
        self.images.append(image)
        for direction, runs in timed.runs.items():
            self.runs[direction] += runs

    def latency(self) -> dict[Direction, Latency]:
        return {direction: Latency.of(runs, _PARTS[direction]) for direction, runs in self.runs.items()}


def bench(
    student: Path,
    images: Sequence[Path],
    *,
    teacher: Path | None = None,
    against: Sequence[str] = (),
    repeats: int = 5,
    threads: int = 1,
    precision: Precision = "auto",
    device: str = "cpu",
    quality: float | None = None,
    plugins: Plugins | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure a student at work.

    Each codec codes each picture once untimed; then all take turns, `repeats` times. Classical codecs are timed at the
    lowest quality that reaches the student's PSNR on that picture. Memory is that of fresh processes.

    Args:
        student: a run folder or model file.
        images: pictures of the student's samples; of others than 8-bit RGB, no classical codec is measured.
        teacher: another, to compare with.
        against: names of classical codecs.
        repeats: timed calls of each codec on each picture, at least 1.
        threads: that each codec may use.
        precision: of the learned codecs' analysis and synthesis.
        device: where they run, see `load_model`; classical codecs run on the CPU.
        quality: in [0, 1], of models of many rates; by default 0.5.
        plugins: where the models' pairs are registered; by default the installed plugins; only these work where memory
            is measured.
        on_step: called with the name of what is measured next.

    Raises:
        DistillkitError: a model or picture cannot be used, or there is no classical codec of a name.
    """
    if not images:
        raise DataError("bench: expected at least one picture, got none; check the folder of pictures.")
    paths = {STUDENT: student} if teacher is None else {TEACHER: teacher, STUDENT: student}
    plugins = plugins or load_plugins()
    machine = this_machine(threads, find_device(device, "device"))
    with torch_threads(threads):
        models = {name: load_model(path, plugins, device) for name, path in paths.items()}
        codecs = {
            name: ImageCodec(m.codec, m.fingerprint, precision=precision, trusted=True) for name, m in models.items()
        }
        samples = codecs[STUDENT].samples
        at_quality(models[STUDENT].codec, quality)  # it says what is wrong
        qualities = {name: usual_quality(codec, quality) for name, codec in codecs.items()}
        light = TEACHER in codecs and reads_files_of(codecs[STUDENT], codecs[TEACHER])
        lost: list[float] = []
        check_images(images, samples=samples)
        classical, missing = _classical(against, threads) if samples == RGB else ({}, dict.fromkeys(against, _RGB_ONLY))
        columns = {name: _Column() for name in (*models, *classical)}
        for path, name in zip(images, _names(images), strict=True):
            on_step(f"times on {name}")
            picture = read_image(path, samples=samples)
            files = _measure_image(picture, name, codecs, qualities, classical, columns, repeats)
            if light:
                lost.append(psnr_lost_db(codecs[TEACHER], codecs[STUDENT], files[TEACHER], picture))
    largest = max(images, key=lambda path: read_image(path, samples=samples).size)
    benched = {}
    for name, model in models.items():
        on_step(f"memory of the {name}")
        memory = measure_memory(paths[name], largest, threads, precision, device, qualities[name])
        codec = codecs[name]
        benched[name] = BenchedModel(
            model=paths[name],
            fingerprint=model.fingerprint,
            precision="bf16" if codec.is_fast and _is_bf16(precision, device) else "fp32",
            num_parameters=num_parameters(model.codec.module),
            parameters_by_part=parameters_by_part(model.codec.module),
            kmac_per_pixel=kmac_per_pixel(model.codec),
            images=tuple(columns[name].images),
            latency=columns[name].latency(),
            memory=memory,
        )
    others = {}
    for name, codec in classical.items():
        column = columns[name]
        latency = column.latency() if column.images else None
        others[name] = BenchedClassical(codec.title, codec.settings, codec.version, tuple(column.images), latency)
    return Bench(machine, repeats, benched, others, missing, fmean(lost) if lost else None)


def _measure_image(
    image: NDArray[Any],
    name: str,
    codecs: Mapping[str, ImageCodec],
    qualities: Mapping[str, float | None],
    classical: Mapping[str, ClassicalCodec],
    columns: Mapping[str, _Column],
    repeats: int,
) -> dict[str, bytes]:
    """Measure all codecs on one picture, and return their files by name."""
    height, width, _ = image.shape
    turns: dict[str, tuple[Coder, Timed]] = {}
    coded: dict[str, CodedImage] = {}
    for codec_name, codec in codecs.items():
        encode = partial(codec.encode, quality=qualities[codec_name])
        coder = Coder(encode, codec.decode, lambda codec=codec: codec.stopwatch.seconds)
        timed = warm_up(coder, image)
        turns[codec_name] = coder, timed
        rate_bpp = 8 * len(timed.data) / (width * height)
        coded[codec_name] = CodedImage(name, width, height, rate_bpp, psnr_db(image, timed.decoded, codec.samples.peak))
    target_db = coded[STUDENT].psnr_db
    for codec_name, codec in classical.items():
        match = match_psnr(codec, image, target_db)
        if match is not None:
            coder = _at_quality(codec, match)
            turns[codec_name] = coder, warm_up(coder, image)
            coded[codec_name] = CodedImage(name, width, height, match.rate_bpp, target_db, match.quality)
    time_by_turns(turns, image, repeats)
    for codec_name, (_, timed) in turns.items():
        columns[codec_name].add(coded[codec_name], timed)
    return {codec_name: timed.data for codec_name, (_, timed) in turns.items()}


def _at_quality(codec: ClassicalCodec, match: Match) -> Coder:
    return Coder(lambda image: codec.encode(image, match.quality), codec.decode)


def _is_bf16(precision: Precision, device: str) -> bool:
    return precision == "bf16" or (precision == "auto" and bf16_is_fast(find_device(device, "device")))


def _classical(names: Sequence[str], threads: int) -> tuple[dict[str, ClassicalCodec], dict[str, str]]:
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = classical_codec(name, threads)
        except MissingCodecError as error:
            missing[name] = str(error)
    return found, missing


def _names(images: Sequence[Path]) -> list[str]:
    """Return the pictures' file names, with their folders where two are the same."""
    names = [path.name for path in images]
    return [name if names.count(name) == 1 else path.as_posix() for name, path in zip(names, images, strict=True)]
