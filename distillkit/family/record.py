"""What a family measured, small enough to be kept in a repository: `docs/results.md` and the like are made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..errors import DataError
from ..evaluation.curve import Metric
from ..model.file import model_name
from ..model.lmbda import LmbdaRange
from ..recipe.recipe import Recipe
from .run import JobStatus

FORMAT = "distillkit-family-1"


@final
@dataclass(frozen=True)
class MeasuredJob:
    """One run of which the model was measured.

    Attributes:
        job: name of the run.
        variant: `teacher`, or the student's variant.
        lmbda: of the run, or of the quality at which a model of many rates was measured.
        seed: of the run.
        num_steps: of the run.
        averages: as in `Evaluation.averages`.
        images: picture -> bits per pixel, PSNR in dB and, where it was measured on all of them, MS-SSIM (linear).
        metric: the quality that was trained for.
        quality: at which a model of many rates was measured, in [0, 1]; else None.
    """

    job: str
    variant: str
    lmbda: float
    seed: int
    num_steps: int
    averages: Mapping[str, float | None]
    images: Mapping[str, tuple[float, ...]]
    metric: Metric = "psnr"
    quality: float | None = None


@final
@dataclass(frozen=True)
class Record:
    """What a family measured, and how its runs were trained.

    Attributes:
        jobs: in the family's order.
        variants: name -> the part of its recipe that matters to the result; no paths.
        environments: on what was measured: one entry for each that differs.
    """

    jobs: tuple[MeasuredJob, ...]
    variants: Mapping[str, Mapping[str, Any]]
    environments: tuple[Mapping[str, Any], ...]

    def to_json(self) -> str:
        """Return JSON with one job per line; figures have six digits."""
        jobs = [
            {
                "job": job.job,
                "variant": job.variant,
                "lmbda": job.lmbda,
                "seed": job.seed,
                "num_steps": job.num_steps,
                "averages": {key: _short(value) for key, value in job.averages.items()},
                "images": [[name, *map(_short, figures)] for name, figures in job.images.items()],
                "metric": job.metric,
                **({} if job.quality is None else {"quality": job.quality}),
            }
            for job in self.jobs
        ]
        lines = ",\n  ".join(json.dumps(job) for job in jobs)
        variants = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(about)}" for name, about in self.variants.items())
        return (
            f'{{"format": "{FORMAT}",\n "environments": {json.dumps(list(self.environments))},\n'
            f' "variants": {{\n  {variants}}},\n "jobs": [\n  {lines}]}}\n'
        )


def record_of(rows: Sequence[JobStatus], older: Record | None = None) -> Record:
    """Return what was measured of a family, whether or not all of it is done.

    Args:
        rows: the family's jobs.
        older: an earlier record; its jobs that were not measured here are kept, if the family still has them with as
            many steps.
    """
    here = _record_of(rows)
    if older is None:
        return here
    kept = {_key(job): job for job in older.jobs} | {_key(job): job for job in here.jobs}
    names = [(row.job.name, row.job.recipe.num_steps) for row in rows]
    jobs = tuple(job for name in names for key, job in kept.items() if key[:2] == name)
    known = {**older.variants, **here.variants}
    variants = {job.variant: known[job.variant] for job in jobs}
    environments = [*older.environments, *(each for each in here.environments if each not in older.environments)]
    return Record(jobs, variants, tuple(environments))


def _record_of(rows: Sequence[JobStatus]) -> Record:
    environments: list[Mapping[str, Any]] = []
    variants: dict[str, Mapping[str, Any]] = {}
    jobs = []
    for row in rows:
        if row.results is None:
            continue
        environment = row.results.get("environment", {})
        if environment and environment not in environments:
            environments.append(environment)
        variants.setdefault(row.job.variant, _essentials(row.job.recipe))
        jobs += measured_jobs(row)
    return Record(tuple(jobs), variants, tuple(environments))


def measured_jobs(row: JobStatus) -> list[MeasuredJob]:
    """Return a job with what was measured on it: once, or at each quality of a model of many rates."""
    return [_measured(row, results) for results in row.sweep or ([row.results] if row.results else [])]


def _measured(row: JobStatus, results: Mapping[str, Any]) -> MeasuredJob:
    columns = ["rate_bpp", "psnr_db"]
    if all(image.get("ms_ssim") is not None for image in results["images"]):
        columns.append("ms_ssim")
    return MeasuredJob(
        job=row.job.name,
        variant=row.job.variant,
        lmbda=results["lmbda"] if isinstance(row.job.lmbda, LmbdaRange) else row.job.lmbda,
        seed=row.job.seed,
        num_steps=row.job.recipe.num_steps,
        averages=results["averages"],
        images={image["name"]: tuple(image[column] for column in columns) for image in results["images"]},
        metric=results.get("metric", "psnr"),
        quality=results.get("quality"),
    )


def common_metric(jobs: Sequence[MeasuredJob]) -> Metric:
    """Return the quality by which runs are compared: MS-SSIM if all were trained for it, else PSNR."""
    return "ms-ssim" if jobs and all(job.metric == "ms-ssim" for job in jobs) else "psnr"


def _key(job: MeasuredJob) -> tuple[str, int, float | None]:
    return job.job, job.num_steps, job.quality


def read_record(path: str | Path) -> Record:
    """Read what `Record.to_json` wrote.

    Raises:
        DataError: the file cannot be read, or is no record.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"record {path}: cannot be read: {error.strerror}; check the path.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"record {path}: expected JSON, got {error}.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(
            f"record {path}: expected format {FORMAT}; `distillkit family FAMILY --record FILE` writes one."
        )
    try:
        jobs = tuple(
            MeasuredJob(**job | {"images": {name: tuple(figures) for name, *figures in job["images"]}})
            for job in content["jobs"]
        )
        return Record(jobs, content["variants"], tuple(content["environments"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"record {path}: damaged ({error!r}); write it again with `--record`.") from None


def _essentials(recipe: Recipe) -> dict[str, Any]:
    values = json.loads(recipe.model_dump_json(exclude_none=True))
    start = values["initial_weights"]
    return {
        "pair": values["pair"],
        "losses": values["losses"],
        "schedule": values["schedule"],
        "optimizer": values["optimizer"],
        "batch": f"{values['data']['batch_size']} of {values['data']['crop']}x{values['data']['crop']}",
        "initial_weights": start if start in ("random", "teacher") else model_name(Path(start)),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
