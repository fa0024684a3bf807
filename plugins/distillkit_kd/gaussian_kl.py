"""Distillation of the entropy model's Gaussians."""

from __future__ import annotations

from typing import Annotated, final

from pydantic import Field
from torch import Tensor

import distillkit

from .taps import match


@final
class GaussianKl(distillkit.LossTerm):
    """Mean divergence of the student's Gaussian of every latent element from the teacher's, in nats; 0 where equal.

    L = mean(log(s_S / s_T) + (s_T^2 + (m_S - m_T)^2) / (2 s_S^2) - 1/2) = mean(KL(N(m_T, s_T) || N(m_S, s_S)))

    s, m: scales and means with which the two sides code their latents, of equal width; scales below `scale_bound` count
    as that, as in the coder.

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
        means = [
            "latent" not in side or side["latent"].channels != student for side in (shapes.student, shapes.teacher)
        ]
        if means[0] != means[1]:
            raise ValueError(
                f"tap 'entropy_parameters': expected means on both sides or on none, got {student} channels that are "
                f"scales alone in the {'teacher' if means[0] else 'student'}. Choose codecs of one kind."
            )
        self._means = means[0]

    def required_taps(self) -> set[str]:
        """Return the entropy parameters."""
        return {"entropy_parameters"}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the mean over the batch and all latent elements."""
        (s_student, m_student), (s_teacher, m_teacher) = map(self._split, step.taps["entropy_parameters"])
        difference = (m_student - m_teacher).square()
        ratio = (s_teacher.square() + difference) / (2 * s_student.square())
        return ((s_student / s_teacher).log() + ratio - 0.5).mean()

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return scales and means of CompressAI's order, shape (B, M, h, w); means of 0 for a codec without."""
        parameters = parameters.float()
        scales, means = parameters.chunk(2, 1) if self._means else (parameters, parameters.new_zeros(()))
        return scales.clamp_min(self.config.scale_bound), means
