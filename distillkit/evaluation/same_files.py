"""Equal files: what a light decoder loses on the files of the model whose decoder it replaces."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..codec.runtime import ImageCodec
from ..model.adapters import entropy_path
from ..model.conditioned import MIDDLE
from .quality import psnr_db


def reads_files_of(student: ImageCodec, teacher: ImageCodec) -> bool:
    """Return whether a codec decodes another's files: they differ in their transforms alone."""
    return student.is_fast and entropy_path(student.adapter.module) == entropy_path(teacher.adapter.module)


def psnr_lost_db(teacher: ImageCodec, student: ImageCodec, data: bytes, picture: NDArray[Any]) -> float:
    """Return how many dB of PSNR a codec's decoding of a file is below that of the codec that wrote it.

    Args:
        teacher: wrote the file.
        student: reads its files.
        data: the file.
        picture: what was compressed, shape (H, W, C).
    """
    first, second = (psnr_db(picture, codec.decode(data), teacher.samples.peak) for codec in (teacher, student))
    return first - second


def usual_quality(codec: ImageCodec, quality: float | None = None) -> float | None:
    """Return the quality at which a codec is measured: the given one or 0.5 for one of many rates, else None."""
    return (MIDDLE if quality is None else quality) if codec.has_many_rates else None
