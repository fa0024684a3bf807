"""Distillation of the entropy model's Gaussians."""

from __future__ import annotations

from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

import distillkit

from .taps import match


@final
class GaussianKl(distillkit.LossTerm):
    """Mean divergence of the student's Gaussian of every latent element from the teacher's, in nats; 0 where equal.

    L = mean(log(s_S / s_T) + (s_T^2 + (m_S - m_T)^2) / (2 s_S^2) - 1/2) = mean(KL(N(m_T, s_T) || N(m_S, s_S)))

    s, m: scales and means with which the two sides code their latents, of equal width; scales below `scale_bound` count
    as that, as in the coder. There the gradient reaches a scale of the student's if following it would raise the scale,
    which is the rule of the entropy model's own bound. Codecs that code groups of channels one after the other have
    scales and means for each group; they are compared channel by channel, however each side is grouped.

    Source: Kullback and Leibler (1951); as a distillation loss between distributions Hinton et al. (2015), arXiv
    1503.02531.
    Departure: ours is its use on entropy parameters; no paper on image codecs that we know publishes it.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            scale_bound: the least scale, in quantisation steps; CompressAI's coder has 0.11.
        """

        scale_bound: Annotated[float, Field(gt=0)] = 0.11

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Check that both sides have means, and latents of one width.

        Raises:
            ValueError: they do not.
        """
        super().__init__(config, shapes)
        match(["entropy_parameters"], shapes)
        student, teacher = (side["entropy_parameters"].channels for side in (shapes.student, shapes.teacher))
        if student != teacher:
            raise ValueError(
                f"tap 'entropy_parameters': expected one width, got {student} channels in the student and {teacher} in "
                "the teacher. Choose latents of equal width, and both sides with means or both without."
            )
        self._groups = [side.get("entropy_parameters") for side in (shapes.student_groups, shapes.teacher_groups)]
        means = [
            "latent" not in side or side["latent"].channels != student for side in (shapes.student, shapes.teacher)
        ]
        if means[0] != means[1]:
            raise ValueError(
                f"tap 'entropy_parameters': expected means on both sides or on none, got {student} channels that are "
                f"only scales in the {'teacher' if means[0] else 'student'}. Choose codecs of one kind."
            )
        self._means = means[0]

    def required_taps(self) -> set[str]:
        """Return the entropy parameters."""
        return {"entropy_parameters"}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the batch and all latent elements."""
        student, teacher = step.taps["entropy_parameters"]
        s_student, m_student = self._split(student, self._groups[0])
        s_teacher, m_teacher = self._split(teacher, self._groups[1])
        s_student = _bounded(s_student, self.config.scale_bound)
        s_teacher = s_teacher.clamp_min(self.config.scale_bound)
        difference = (m_student - m_teacher).square()
        ratio = (s_teacher.square() + difference) / (2 * s_student.square())
        return ((s_student / s_teacher).log() + ratio - 0.5).mean()

    def _split(self, parameters: Tensor, groups: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
        """Return scales and means of CompressAI's order, shape (B, M, h, w); means of 0 for a codec without."""
        parameters = parameters.float()
        if not self._means:
            return parameters, parameters.new_zeros(())
        parts = parameters.split(list(groups), 1) if groups else [parameters]
        scales, means = zip(*(part.chunk(2, 1) for part in parts), strict=True)
        return torch.cat(scales, 1), torch.cat(means, 1)


def _bounded(scales: Tensor, bound: float) -> Tensor:
    from compressai.ops.bound_ops import LowerBoundFunction

    return LowerBoundFunction.apply(scales, scales.new_full((), bound))
