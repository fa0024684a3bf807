"""Measure a codec on real files: compress each picture, write it, read it back, decode it, and compare."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codec.bitstream import check_bounds
from ..codec.runtime import ImageCodec
from ..data.images import check_images, image_size, read_image
from ..data.listing import mark_output
from ..data.samples import RGB, Samples
from ..errors import DataError, DistillkitError
from ..hooks.loader import Plugins, load_plugins
from ..model.conditioned import at_quality
from ..model.device import device_name
from ..model.file import TrainedModel, load_model
from ..model.lmbda import at_lmbda
from ..model.sources import named_sources
from ..training.objectives.distances import PerceptualDistance
from ..training.objectives.objective import MeanSquaredError, Objective
from .curve import Metric
from .decode import Decoder, DecodingProcess, decoder_of
from .estimate import estimated_bpp
from .quality import decibel, ms_ssim, mse01, psnr_db
from .results import Evaluation, ImageResult

_LOG = logging.getLogger("distillkit")


def evaluate_model(
    model: str | Path,
    paths: Sequence[Path],
    out: Path,
    *,
    plugins: Plugins | None = None,
    on_image: Callable[[ImageResult], None] | None = None,
    process: DecodingProcess | None = None,
    perceptual: Sequence[PerceptualDistance] = (),
    quality: float | None = None,
    objective: Objective | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure a trained model: as `evaluate`, but what it compresses is decoded in a fresh process.

    Args:
        model: its file, or its run folder.
        paths: pictures of the codec's samples, mostly 8-bit RGB.
        out: folder for the files; made if it does not exist.
        plugins: where the model's pair is registered; by default the installed plugins.
        on_image: called with each result as soon as it is there.
        process: where it is decoded; by default one for this call, but starting one takes seconds.
        perceptual: distances to measure as well.
        quality: in [0, 1], of a model of many rates; None for one of a single rate.
        objective: gives the cost of a model whose file names an objective that needs another file, as `core.lpips`
            does. A model may come from a stranger, so that file is not opened: by default the cost is left out, with
            a warning.
        device: where both run, see `load_model`.

    Raises:
        DistillkitError: the model or a picture cannot be used, or a file does not decode.
    """
    plugins = plugins or load_plugins()
    loaded = load_model(model, plugins, device)
    trained_for = _objective(model, loaded, plugins, objective)
    codec = ImageCodec(loaded.codec, loaded.fingerprint, trusted=True)
    with nullcontext(process) if process else DecodingProcess() as decoding:
        decoder = decoding.decoder(Path(model), loaded, plugins, device)
        options: dict[str, Any] = {"objective": trained_for, "decoder": decoder, "perceptual": perceptual}
        return evaluate(codec, paths, out, at_lmbda(loaded.lmbda, quality), on_image, quality=quality, **options)


@final
class _NoCost(Objective):
    """Replaces an objective that cannot be computed: no picture is large enough for it."""

    min_side = sys.maxsize

    def __init__(self, metric: Metric) -> None:
        super().__init__(None)
        self.metric = metric  # type: ignore[misc] - of the objective in whose place this stands

    def distortion(self, x_hat: Tensor, images: Tensor) -> Tensor:
        """Return NaN for each image: the distortion is not known."""
        return torch.full((len(images),), torch.nan)


def _objective(model: str | Path, loaded: TrainedModel, plugins: Plugins, given: Objective | None) -> Objective:
    """Return what a model was trained for, or `given` if that would open a file that the model's file names."""
    options = {key: value for key, value in loaded.objective.items() if key != "name"}
    name, where = loaded.objective["name"], f"model {model}: objective"
    objective_class, config = plugins.configure("objective", name, options, where)
    if not (sources := ", ".join(named_sources(config))):
        return objective_class(config)
    if given is None:
        _LOG.warning(
            "model %s: its objective %s needs a file (%s) that is not opened, as a model may come from a stranger: "
            "the RD cost is left out. In Python, pass `objective`.",
            *(model, name, sources),
        )
    return given or _NoCost(objective_class.metric)


def evaluate(
    codec: ImageCodec,
    paths: Sequence[Path],
    out: Path,
    lmbda: float | None,
    on_image: Callable[[ImageResult], None] | None = None,
    *,
    objective: Objective | None = None,
    decoder: Decoder | None = None,
    perceptual: Sequence[PerceptualDistance] = (),
    quality: float | None = None,
) -> Evaluation:
    """Compress and decode the pictures in `paths`, and measure.

    Writes for each picture `<name>.dk` (compressed) and `<name>.png` (decoded; `.tif` for samples that PNG does not
    have) into `out`, in subfolders like those of the originals; `results.json`, which CompressAI's tools read, too; and
    `images.csv`. The first picture is coded once more beforehand, untimed, to warm up.

    Args:
        codec: what is measured.
        paths: pictures of the codec's samples, mostly 8-bit RGB.
        out: folder for the files; made if it does not exist.
        lmbda: trade-off of the rate-distortion cost, or None to leave that out.
        on_image: called with each result as soon as it is there.
        objective: what the codec was trained for; by default the mean squared error.
        decoder: decodes the files; by default `codec`, in this process. `evaluate_model` has a better one.
        perceptual: distances to measure as well.
        quality: in [0, 1], of a codec of many rates; None for one of a single rate.

    Raises:
        DataError: there are no pictures, one cannot be used, an original would be overwritten, or `out` cannot be made.
        BitstreamError: a file does not decode.
    """
    if not paths:
        raise DataError("evaluation: expected at least one picture, got none; check the folder of test images.")
    names = output_names(paths)
    objective = objective or MeanSquaredError(None)
    originals = {path.resolve() for path in paths}
    samples = codec.samples
    files = [(out / f"{name}.dk", out / f"{name}{samples.suffix}") for name in names]
    for _, file in files:
        if file.resolve() in originals:
            raise DataError(f"evaluation: {file} is an original and would be overwritten; choose another folder.")
    if perceptual and samples != RGB:
        measures = ", ".join(distance.name.upper() for distance in perceptual)
        raise DataError(
            f"evaluation: {measures} is for 8-bit RGB only, and the codec's pictures have {samples}; leave it out."
        )
    check_images(paths, pixels=True, samples=samples)  # the last of many would end what hours have measured
    sizes = [image_size(path, samples) for path in paths]
    for path, (height, width) in zip(paths, sizes, strict=True):
        try:
            check_bounds(width, height)
        except DistillkitError as error:
            raise DataError(f"evaluation: image {path}: {error}") from None
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    if (problem := codec.memory_problem(height, width)) is not None:
        raise DataError(f"evaluation: {problem}")
    try:
        mark_output(out)
    except OSError as error:
        raise DataError(f"evaluation {out}: cannot be made: {error.strerror}; choose another folder.") from None
    codec.encode(read_image(paths[0], samples=samples), quality)
    encoded = [_encode(codec, path, file, quality) for path, (file, _) in zip(paths, files, strict=True)]
    results = []
    decoding = (decoder or decoder_of(codec))(files)
    for path, name, pair, (estimate, encode_seconds) in zip(paths, names, files, encoded, strict=True):
        seconds = encode_seconds, next(decoding)
        result = _measure(path, name, pair, samples, (objective, lmbda), estimate, seconds, perceptual)
        results.append(result)
        if on_image is not None:
            on_image(result)
    next(decoding, None)  # lets the decoder end, and say what was wrong with its end
    evaluation = Evaluation(
        fingerprint=codec.fingerprint,
        lmbda=lmbda,
        metric=objective.metric,
        images=tuple(results),
        name=out.resolve().name,
        decoded_in="same" if decoder is None else "fresh",
        environment=environment(next(codec.adapter.module.parameters()).device),
        quality=quality,
        samples=samples,
    )
    (out / "results.json").write_text(evaluation.to_json(), encoding="utf-8", errors="backslashreplace")
    (out / "images.csv").write_text(evaluation.to_csv(), encoding="utf-8", errors="backslashreplace")
    return evaluation


def environment(device: torch.device) -> dict[str, str | int]:
    """Return on what is measured: versions, processor, threads, and the device where it is not the CPU."""
    other = {} if device.type == "cpu" else {"device": device_name(device)}
    return other | {
        "distillkit": metadata.version("distillkit-lic"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "num_threads": torch.get_num_threads(),
    }


def _encode(codec: ImageCodec, path: Path, file: Path, quality: float | None) -> tuple[float | None, float]:
    """Write the compressed file; return the estimated rate in bpp and the seconds that encoding took."""
    original = read_image(path, samples=codec.samples)
    file.parent.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    file.write_bytes(codec.encode(original, quality))
    seconds = perf_counter() - start
    return estimated_bpp(at_quality(codec.adapter, quality), original), seconds


def _measure(
    path: Path,
    name: str,
    files: tuple[Path, Path],
    samples: Samples,
    trained_for: tuple[Objective, float | None],
    estimate: float | None,
    seconds: tuple[float, float],
    perceptual: Sequence[PerceptualDistance],
) -> ImageResult:
    original, decoded = (read_image(each, samples=samples) for each in (path, files[1]))
    height, width, _ = original.shape
    file_bytes = files[0].stat().st_size
    rate_bpp = 8 * file_bytes / (width * height)
    similarity = ms_ssim(original, decoded, samples.peak)
    return ImageResult(
        name=name,
        source=path,
        width=width,
        height=height,
        file_bytes=file_bytes,
        rate_bpp=rate_bpp,
        estimated_bpp=estimate,
        psnr_db=psnr_db(original, decoded, samples.peak),
        ms_ssim=similarity,
        ms_ssim_db=None if similarity is None else decibel(similarity),
        encode_seconds=seconds[0],
        decode_seconds=seconds[1],
        rd_cost=_cost(*trained_for, original, decoded, samples.peak, rate_bpp),
        **{
            distance.name: distance(original, decoded) if min(height, width) >= distance.min_side else None
            for distance in perceptual
        },
    )


def _cost(
    objective: Objective,
    lmbda: float | None,
    original: NDArray[Any],
    decoded: NDArray[Any],
    peak: int,
    rate_bpp: float,
) -> float | None:
    if lmbda is None or min(original.shape[:2]) < objective.min_side:
        return None
    if isinstance(objective, MeanSquaredError):
        return lmbda * 255**2 * mse01(original, decoded, peak) + rate_bpp
    both = (each.transpose(2, 0, 1)[None].astype(np.float32, order="C") for each in (decoded, original))
    pictures = (torch.from_numpy(each) / peak for each in both)
    with torch.no_grad():
        return lmbda * float(objective.distortion(*pictures)) + rate_bpp


def output_names(paths: Sequence[Path]) -> list[str]:
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
