"""FEDS's feature alignment."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import distillkit


@final
class FeatureAlignment(distillkit.LossTerm):
    """Pulls the student's features to the teacher's: 0 where equal, about 1 for a constant guess (unitless).

    L = mean over taps l of mean((P_l(f_S) - sg(f_T))^2) / Var(f_T)

    f_S, f_T: the two sides' features, shape (B, C_S, H, W) and (B, C_T, H, W). P_l: a 1x1 convolution to C_T channels
    where C_S differs, else the identity; trained with the student, never exported. sg: no gradient. Var: over batch and
    positions of the teacher's features, averaged over channels. Both means are over a sample of the positions where
    there are more than `positions`: one out of each cell of s x s, see `distillkit.sampled`.

    Source: FEDS (arXiv 2503.06399) aligns intermediate features of student and teacher. Adapters: Romero et al. (2015),
    FitNets, arXiv 1412.6550.
    Departure: the paper's distance, taps and normalisation are not public. We take the squared distance at every
    resolution stage and the latent, and divide by the variance so that one weight serves all taps. Positions are
    sampled because the finest stages cost most of the loss's time and memory.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            taps: patterns (fnmatch) of the roles to align; each must match at least one.
            positions: how many positions of one crop's feature map are compared at most; 0 for all.
            resize: whether the student's features are resized (bilinear) where the teacher's have another resolution;
                an error otherwise.
        """

        taps: tuple[str, ...] = ("analysis.*", "latent", "synthesis.*")
        positions: Annotated[int, Field(ge=0)] = 1024
        resize: bool = False

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Choose the taps and build their adapters.

        Raises:
            ValueError: a pattern matches no tap, or resolutions differ.
        """
        super().__init__(config, shapes)
        self._roles: list[str] = []
        for pattern in config.taps:
            found = [role for role in shapes.student if fnmatchcase(role, pattern)]
            if not found:
                hint = distillkit.did_you_mean(pattern, shapes.student)
                raise ValueError(f"taps: no tap matches '{pattern}'; there are {', '.join(shapes.student)}.{hint}")
            self._roles += [role for role in found if role not in self._roles]
        self.adapters = nn.ModuleDict()
        for role in self._roles:
            student, teacher = shapes.student[role], shapes.teacher[role]
            if (student.height, student.width) != (teacher.height, teacher.width) and not config.resize:
                raise ValueError(
                    f"tap '{role}': expected one resolution, got {student.height}x{student.width} in the student and "
                    f"{teacher.height}x{teacher.width} in the teacher. Set resize = true, or leave the tap out."
                )
            if student.channels != teacher.channels:
                self.adapters[_key(role)] = nn.Conv2d(student.channels, teacher.channels, 1)
        self._wanted = {role: distillkit.sampled(role, self._stride(role, shapes)) for role in self._roles}

    def required_taps(self) -> set[str]:
        """Return the roles to align."""
        return set(self._wanted.values())

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the taps."""
        return torch.stack([self._distance(role, *step.taps[wanted]) for role, wanted in self._wanted.items()]).mean()

    def _distance(self, role: str, student: Tensor, teacher: Tensor) -> Tensor:
        if _key(role) in self.adapters:
            student = self.adapters[_key(role)](student)
        if student.shape[2:] != teacher.shape[2:]:
            student = F.interpolate(student, size=teacher.shape[2:], mode="bilinear", align_corners=False)
        teacher = teacher.float()
        variance = distillkit.batch_variance(teacher).mean()
        return F.mse_loss(student.float(), teacher) / variance.clamp_min(1e-6)

    def _stride(self, role: str, shapes: distillkit.TapShapes) -> int:
        """Return the side s of the cells: the smallest that leaves no more than `positions`."""
        student, teacher = shapes.student[role], shapes.teacher[role]
        if not self.config.positions or student[1:] != teacher[1:]:  # resized maps have no positions in common
            return 1
        stride = 1
        while (student.height // stride) * (student.width // stride) > self.config.positions:
            stride += 1
        return stride

    def extra_repr(self) -> str:
        """Name the taps."""
        return ", ".join(self._roles)


def _key(role: str) -> Any:
    return role.replace(".", "_")  # a module's name may not hold a dot
