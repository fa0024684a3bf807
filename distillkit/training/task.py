"""The module that is trained: the student and the loss terms' adapters with one `forward`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor, nn

from ..model.adapters import CodecAdapter, CodecOutput
from ..model.conditioned import at_quality
from ..model.lmbda import Lmbda, LmbdaRange
from ..taps.pair import TapPair, TeachingPair
from .losses import LossTerm, RecordedStep, Step
from .objectives.objective import Objective, RateDistortion, rate_distortion


class StepLosses(NamedTuple):
    """The losses of one step: rate-distortion, and each active term before any weight."""

    rd: RateDistortion
    terms: dict[str, Tensor]

    @classmethod
    def mean(cls, parts: Sequence[StepLosses]) -> StepLosses:
        """Return the losses of a batch, without gradient, from those of its equal parts."""

        def mean(values: Iterable[Tensor]) -> Tensor:
            detached = [value.detach() for value in values]
            return detached[0] if len(detached) == 1 else torch.stack(detached).mean(dim=0)

        rd = RateDistortion(*(mean(values) for values in zip(*(part.rd for part in parts), strict=True)))
        return cls(rd, {name: mean(part.terms[name] for part in parts) for name in parts[0].terms})


class Taught(NamedTuple):
    """What one teacher gives for a batch: features by role, and its output if a term asks for it."""

    taps: dict[str, Tensor]
    output: CodecOutput | None = None


class Part(NamedTuple):
    """One part of a batch: images, what each teacher gives for them, and their qualities or None."""

    images: Tensor
    taught: dict[str, Taught]
    quality: Tensor | None

    def in_float32(self) -> Part:
        """Return the part with features in float32; outputs are in it already."""
        taught = {
            name: each._replace(taps={role: tap.float() for role, tap in each.taps.items()})
            for name, each in self.taught.items()
        }
        return self._replace(taught=taught)


@final
class DistillationTask(nn.Module):
    """Student and loss terms in one module, so that optimiser, clipping and data parallelism see both.

    The teachers stay outside: their features are passed in.
    """

    def __init__(
        self,
        codec: CodecAdapter,
        lmbda: Lmbda,
        objective: Objective,
        terms: Mapping[str, LossTerm],
        pairs: Mapping[str, TeachingPair],
        teacher_of: Mapping[str, str],
        host: str = "",
    ) -> None:
        """Put them together.

        Args:
            codec: that is trained.
            lmbda: its trade-off.
            objective: what it is trained for.
            terms: the loss terms by label.
            pairs: each teacher beside the codec, by the teacher's name.
            teacher_of: label -> name of the teacher, for terms that have one.
            host: name of the teacher into which stages are grafted.
        """
        super().__init__()
        self.codec, self.lmbda, self.objective = codec, lmbda, objective
        self.pairs, self.teacher_of, self.host = dict(pairs), dict(teacher_of), host
        self.graft: tuple[str, ...] = ()  # of the phase: stages of the student that run inside the teacher
        self.teacher_forcing = False  # of the phase: the student's entropy model and synthesis take the teacher's y
        self.student = codec.module
        self.terms = nn.ModuleDict({_key(name): term for name, term in terms.items()})

    def forward(
        self,
        images: Tensor,
        taught: Mapping[str, Taught],
        active: Iterable[str],
        quality: Tensor | None = None,
        *,
        trains_rd: bool = True,
        number: int | None = 0,
    ) -> StepLosses:
        """Run the student on a batch and return its losses.

        Args:
            images: shape (B, C, H, W), range [0, 1].
            taught: what each teacher gives, by its name; the student is tapped at the same roles.
            active: labels of the terms to compute.
            quality: of each image, in [0, 1], shape (B,), for a student of many rates; else None.
            trains_rd: whether the rate-distortion cost carries gradient, or is only measured.
            number: of the step within the run; None in a step that is recorded to be replayed.
        """
        output, steps = self._run_student(images, taught, quality, number)
        lmbda = self.lmbda.at(quality) if isinstance(self.lmbda, LmbdaRange) and quality is not None else self.lmbda
        assert not isinstance(lmbda, LmbdaRange)
        losses = {name: self.terms[_key(name)](steps[self.teacher_of.get(name, "")]).float() for name in active}
        weight: Tensor | float = 1.0
        if isinstance(self.lmbda, LmbdaRange) and quality is not None:
            weight = self.lmbda.weight_of(quality)
        with torch.set_grad_enabled(trains_rd and torch.is_grad_enabled()):
            rd = rate_distortion(output, images, lmbda, self.objective, weight)
        return StepLosses(rd, losses)

    def _run_student(
        self, images: Tensor, taught: Mapping[str, Taught], quality: Tensor | None, number: int | None
    ) -> tuple[CodecOutput, dict[str, Step]]:
        """Return the student's output, and what the terms of each teacher see; under "" those without one."""
        features: dict[str, Tensor] = {}
        if self.pairs:
            pair = next(iter(self.pairs.values()))  # the student's taps are the same beside each teacher
            roles = {role for each in taught.values() for role in each.taps}
            if self.graft:
                output, features = self.pairs[self.host].graft(images, self.graft, roles)
            else:
                latent = None
                if self.teacher_forcing:  # `check_forcing` made sure that one teacher gives it
                    latent = next(each.taps["latent"] for each in taught.values() if "latent" in each.taps)
                output, features = pair.run_student_alone(images, roles, quality, latent)
        else:
            output = at_quality(self.codec, quality).forward(images)
        made, place = (RecordedStep, 0) if number is None else (Step, number)
        steps: dict[str, Step] = {"": made(images, output, {}, place, quality)}
        for name, each in taught.items():
            taps = {role: TapPair(features[role], tap) for role, tap in each.taps.items()}
            steps[name] = made(images, output, taps, place, quality, each.output)
        return output, steps

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move everything, the objective's tensors too, which are no submodule: the optimiser must not see them."""
        moved = super().to(*args, **kwargs)
        self.objective.to(next(self.parameters()).device)
        return moved

    def term(self, name: str) -> LossTerm:
        """Return a loss term by its label."""
        term = self.terms[_key(name)]
        assert isinstance(term, LossTerm)
        return term

    def main_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but those that only the auxiliary loss trains."""
        quantiles = {id(parameter) for parameter in self.codec.quantile_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in quantiles]


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name may not hold a dot
