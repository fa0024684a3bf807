"""What the losses share: which taps they compare, and how the student's widths are brought to the teacher's."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import Tensor, nn

import distillkit


def match(patterns: Iterable[str], shapes: distillkit.TapShapes) -> list[str]:
    """Return the roles that match the patterns (fnmatch), each once.

    Raises:
        ValueError: a pattern matches no tap, or resolutions differ.
    """
    roles: list[str] = []
    for pattern in patterns:
        found = [role for role in shapes.student if fnmatchcase(role, pattern)]
        if not found:
            raise ValueError(missing(pattern, shapes))
        roles += [role for role in found if role not in roles]
    for role in roles:
        student, teacher = shapes.student[role], shapes.teacher[role]
        if (student.height, student.width) != (teacher.height, teacher.width):
            raise ValueError(
                f"tap '{role}': expected one resolution, got {student.height}x{student.width} in the student and "
                f"{teacher.height}x{teacher.width} in the teacher. Leave the tap out."
            )
    return roles


def missing(role: str, shapes: distillkit.TapShapes) -> str:
    """Return the message for a tap that does not exist."""
    known = distillkit.did_you_mean(role, shapes.student)
    return f"taps: no tap matches '{role}'; there are {', '.join(shapes.student)}.{known}"


class Adapters(nn.Module):
    """A trained 1x1 convolution from the student's width to the teacher's for every tap where they differ.

    Source: Romero et al. (2015), FitNets, arXiv 1412.6550.
    """

    def __init__(self, roles: Iterable[str], shapes: distillkit.TapShapes) -> None:
        super().__init__()
        for role in roles:
            student, teacher = shapes.student[role].channels, shapes.teacher[role].channels
            if student != teacher:
                self.add_module(_key(role), nn.Conv2d(student, teacher, 1))

    def forward(self, role: str, student: Tensor) -> Tensor:
        """Return the student's features, shape (B, C_S, H, W), as float32 of the teacher's width C_T."""
        adapter = self._modules.get(_key(role))
        return (adapter(student) if adapter is not None else student).float()


def _key(role: str) -> str:
    return role.replace(".", "_")  # a module's name may not hold a dot
