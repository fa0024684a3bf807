"""The module that is trained: the student and the loss terms' adapters behind one `forward`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor, nn

from ..model.adapters import CodecAdapter
from ..model.conditioned import at_quality
from ..model.lmbda import Lmbda, LmbdaRange
from ..taps.pair import TeachingPair
from .losses import LossTerm, Step
from .objectives.objective import Objective, RateDistortion, rate_distortion


class StepLosses(NamedTuple):
    """The losses of one step: rate-distortion, and each active term before any weight."""

    rd: RateDistortion
    terms: dict[str, Tensor]

    @classmethod
    def mean(cls, parts: Sequence[StepLosses]) -> StepLosses:
        """Return the losses of a batch, without gradient, from those of its equal parts."""

        def mean(values: Iterable[Tensor]) -> Tensor:
            return torch.stack([value.detach() for value in values]).mean(dim=0)

        if len(parts) == 1:
            return parts[0]
        rd = RateDistortion(*(mean(values) for values in zip(*(part.rd for part in parts), strict=True)))
        return cls(rd, {name: mean(part.terms[name] for part in parts) for name in parts[0].terms})


class Part(NamedTuple):
    """One part of a batch: images, the teacher's features for them by role, and their qualities or None."""

    images: Tensor
    taps: dict[str, Tensor]
    quality: Tensor | None


@final
class DistillationTask(nn.Module):
    """Student and loss terms in one module, so that optimiser, clipping and data parallelism see both.

    The teacher stays outside: its features are handed in.
    """

    def __init__(
        self,
        codec: CodecAdapter,
        lmbda: Lmbda,
        objective: Objective,
        terms: Mapping[str, LossTerm],
        pair: TeachingPair | None,
    ) -> None:
        super().__init__()
        self.codec, self.lmbda, self.objective, self.pair = codec, lmbda, objective, pair
        self.student = codec.module
        self.terms = nn.ModuleDict({_key(name): term for name, term in terms.items()})

    def forward(
        self,
        images: Tensor,
        teacher_taps: Mapping[str, Tensor],
        active: Iterable[str],
        quality: Tensor | None = None,
        *,
        trains_rd: bool = True,
        number: int = 0,
    ) -> StepLosses:
        """Run the student on a batch and return its losses.

        Args:
            images: shape (B, C, H, W), range [0, 1].
            teacher_taps: the teacher's features by role; the student is tapped at the same roles.
            active: full names of the terms to compute.
            quality: of each image, in [0, 1], shape (B,), for a student of many rates; else None.
            trains_rd: whether the rate-distortion cost carries gradient, or is only measured.
            number: of the step within the run.
        """
        if self.pair is None:
            output, taps = at_quality(self.codec, quality).forward(images), {}
        else:
            output, taps = self.pair.run_student(images, teacher_taps, quality)
        step = Step(images, output, taps, number, quality)
        lmbda = self.lmbda.at(quality) if isinstance(self.lmbda, LmbdaRange) and quality is not None else self.lmbda
        assert not isinstance(lmbda, LmbdaRange)
        losses = {name: self.terms[_key(name)](step).float() for name in active}
        weight: Tensor | float = 1.0
        if isinstance(self.lmbda, LmbdaRange) and quality is not None:
            weight = self.lmbda.weight_of(quality)
        with torch.set_grad_enabled(trains_rd and torch.is_grad_enabled()):
            rd = rate_distortion(output, images, lmbda, self.objective, weight)
        return StepLosses(rd, losses)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move everything, the objective's tensors too, which are no submodule: the optimiser must not see them."""
        moved = super().to(*args, **kwargs)
        self.objective.to(next(self.parameters()).device)
        return moved

    def term(self, name: str) -> LossTerm:
        """Return a loss term by its full name."""
        term = self.terms[_key(name)]
        assert isinstance(term, LossTerm)
        return term

    def main_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but those that only the auxiliary loss trains."""
        quantiles = {id(parameter) for parameter in self.codec.quantile_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in quantiles]


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name may not hold a dot
