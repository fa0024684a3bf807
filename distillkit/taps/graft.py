"""A frozen teacher in which stages of a student replace those of the teacher."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager

from torch import Tensor, nn

from ..errors import PairError, did_you_mean
from ..model.adapters import CodecAdapter, CodecOutput
from ..model.conditioned import ConditionedAdapter
from .bank import TapBank


def run_grafted(
    teacher: CodecAdapter, bank: TapBank, images: Tensor, stages: Collection[str], roles: Collection[str]
) -> tuple[CodecOutput, dict[str, Tensor]]:
    """Return the teacher's output with a student's stages in it, and the student's features; see `TeachingPair.graft`.

    Args:
        teacher: frozen.
        bank: the student's.
        images: shape (B, C, H, W), range [0, 1].
        stages: paths of modules that both codecs have.
        roles: taps to capture.

    Raises:
        PairError: one of the two has no such module, or has many rates.
    """
    student = bank.codec
    with _grafted(teacher, student, stages):
        bank.codec = teacher
        try:
            output, features = bank.run(images, roles)
        finally:
            bank.codec = student
    assert output is not None
    return output, features


@contextmanager
def _grafted(teacher: CodecAdapter, student: CodecAdapter, stages: Collection[str]) -> Generator[None]:
    """Have the teacher hold the student's stages.

    It is in training mode, for its quantisation passes no gradient otherwise; parts of it that would change by that or
    draw at random (running statistics, dropout) stay in eval mode. The student's stages keep their mode.
    """
    for codec in (teacher, student):
        if isinstance(codec, ConditionedAdapter):
            raise PairError(
                f"graft: expected codecs of one rate, got {type(codec.module).__name__} of many; train at one lambda."
            )
    own = {path: _part(teacher.module, path, "teacher") for path in stages}
    new = {path: _part(student.module, path, "student") for path in stages}
    teacher.module.train()
    for part in teacher.module.modules():
        if hasattr(part, "running_mean") or isinstance(part, nn.modules.dropout._DropoutNd):  # pyright: ignore
            part.eval()
    try:
        for path, part in new.items():
            _put(teacher.module, path, part)
        yield
    finally:
        for path, part in own.items():
            _put(teacher.module, path, part)
        teacher.module.eval()


def _part(module: nn.Module, path: str, side: str) -> nn.Module:
    parts = dict(module.named_modules())
    if not path or path not in parts:
        hint = did_you_mean(path, parts) or f" It has {', '.join(name for name, _ in module.named_children())}."
        raise PairError(f"graft: the {side}, {type(module).__name__}, has no stage '{path}'.{hint}")
    return parts[path]


def _put(module: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)
