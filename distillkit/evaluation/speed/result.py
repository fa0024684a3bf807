"""What a measurement holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, final

from .machine import Machine
from .memory import Memory
from .timing import Direction, Latency

STUDENT, TEACHER = "student", "teacher"


@final
@dataclass(frozen=True)
class CodedImage:
    """A picture, and what one codec made of it at one setting.

    Attributes:
        name: of its file.
        width: in pixels.
        height: in pixels.
        rate_bpp: bits of the compressed file a pixel; at exactly the student's PSNR for a classical codec.
        psnr_db: of the decoded picture; the student's for a classical codec.
        quality: of a classical codec where it was timed: the lowest that reaches that PSNR.
    """

    name: str
    width: int
    height: int
    rate_bpp: float
    psnr_db: float
    quality: int | None = None


@final
@dataclass(frozen=True)
class BenchedModel:
    """What was measured of a learned codec.

    Attributes:
        model: its file.
        fingerprint: of its module.
        precision: of analysis and synthesis.
        num_parameters: in all.
        parameters_by_part: of analysis, synthesis and the entropy model.
        kmac_per_pixel: see `model.complexity`.
        images: one for each picture.
        latency: by direction.
        memory: by direction, on the largest picture; None where the system does not say.
    """

    model: Path
    fingerprint: str
    precision: Literal["bf16", "fp32"]
    num_parameters: int
    parameters_by_part: Mapping[str, int]
    kmac_per_pixel: float
    images: tuple[CodedImage, ...]
    latency: Mapping[Direction, Latency]
    memory: Mapping[Direction, Memory] | None


@final
@dataclass(frozen=True)
class BenchedClassical:
    """What was measured of a classical codec at the student's PSNR.

    Attributes:
        title: for tables.
        settings: what it was called with, in words.
        version: of its library.
        images: the pictures on which it reaches the student's PSNR and is not above it at its lowest quality.
        latency: by direction, on those pictures; None where there are none.
    """

    title: str
    settings: str
    version: str
    images: tuple[CodedImage, ...]
    latency: Mapping[Direction, Latency] | None


@final
@dataclass(frozen=True)
class Bench:
    """A measurement.

    Attributes:
        machine: what it was made on.
        repeats: timed calls on each picture.
        models: `teacher`, where there is one, and `student`.
        classical: name -> codec.
        missing: name -> why a classical codec could not be measured.
        lost_db: PSNR that the student loses on the teacher's files, mean over pictures; None where it reads none.
    """

    machine: Machine
    repeats: int
    models: Mapping[str, BenchedModel]
    classical: Mapping[str, BenchedClassical]
    missing: Mapping[str, str]
    lost_db: float | None = None

    def cuts(self) -> dict[str, float]:
        """Return 1 - student / teacher of every measure that both have; times by their medians."""
        if TEACHER not in self.models:
            return {}
        student, teacher = (measures(self.models[name]) for name in (STUDENT, TEACHER))
        return {key: 1 - student[key] / value for key, value in teacher.items() if value and key in student}

    def student_rate_bpp(self, name: str) -> float:
        """Return the student's mean rate on the pictures on which a classical codec reaches its PSNR."""
        names = {image.name for image in self.classical[name].images}
        return fmean(image.rate_bpp for image in self.models[STUDENT].images if image.name in names)

    def to_json(self) -> str:
        """Return all figures as JSON."""
        content = asdict(self) | {"cuts": self.cuts()}
        return json.dumps(content, indent=2, default=lambda path: path.as_posix()) + "\n"


def measures(model: BenchedModel) -> dict[str, float]:
    """Return the figures of a model that a student should reduce, by name; seconds are medians."""
    found: dict[str, float] = {}
    for direction, latency in model.latency.items():
        found[f"{direction} seconds"] = latency.total.median
        found |= {f"{direction} {part} seconds": spread.median for part, spread in latency.parts.items()}
    for direction, memory in (model.memory or {}).items():
        found[f"{direction} peak memory bytes"] = memory.peak_bytes
    found["parameters"] = model.num_parameters
    found |= {f"{part} parameters": count for part, count in model.parameters_by_part.items()}
    return found | {"kmac per pixel": model.kmac_per_pixel}
