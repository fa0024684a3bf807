"""A large codec that decays into a small one."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor, nn

import distillkit

_TOLERANCE = 1e-3  #: by which the small codec's picture may differ from the large one's, of a range of 1


@final
class MaskDecay(distillkit.StepExtension):
    """Trains the teacher's network instead of the student's, while the weights that the student lacks fade away.

    m(t) = max(0, 1 - t / T);  after step t every such weight is multiplied by m(t + 1) / m(t)

    T: `share` of the run's steps. From step T on these weights are 0 and stay so: the large network then computes what
    the student alone would, and the student, which is what is validated and saved, is cut out of it. Which channels
    stay is decided once, as for `initial_weights`: in each width those whose weights have the largest norms.

    The student must be a part of its teacher: the same layers with fewer channels, or fewer residual blocks. Layers
    that normalise over channels (layer norm) cannot be cut.

    Source: EVC (Wang et al., 2023, arXiv 2302.05071) lets the weights of a large image codec decay into those of a
    small one by masks, under a sparsity loss.
    Departure: here the masks follow a line, which has no weight to be tuned, and apply to the rows and columns of every
    weight, not to the outputs of layers.
    """

    needs_teacher: ClassVar[bool] = True

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            share: of the run's steps in which the weights fade; in the rest the small codec is trained on.
        """

        share: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __init__(self, config: Config, trained: distillkit.Trained) -> None:
        """Copy the teacher, find the part that remains, and check that it is the student.

        Raises:
            ValueError: the student is not a part of its teacher.
        """
        super().__init__(config, trained)
        assert trained.teacher is not None
        self._student = trained.codec
        self.codec = copy.deepcopy(trained.teacher)
        self.codec.module.requires_grad_(True)
        self._num_steps = max(1, round(config.share * trained.num_steps))
        self._cuts = distillkit.find_cuts(self._student.module, self.codec.module, torch.zeros(0))
        found = {cut.name for cut in self._cuts}
        if missing := [name for name, _ in self._student.module.named_parameters() if name not in found]:
            raise ValueError(f"{_NO_PART}, got parameters that the teacher lacks: {', '.join(missing[:5])}. {_CHOOSE}")
        kept = {id(cut.large): cut.kept() for cut in self._cuts}
        self._gone: list[tuple[nn.Parameter, Tensor]] = []
        for parameter in self.codec.module.parameters():
            gone = ~kept[id(parameter)] if id(parameter) in kept else torch.ones_like(parameter, dtype=torch.bool)
            if gone.any():
                self._gone.append((parameter, gone))
        self._check(trained.crop)

    @torch.no_grad()
    def _check(self, crop: int) -> None:
        """Compare the student with the large codec without the weights that fade, on noise."""
        before = [parameter.clone() for parameter, _ in self._gone]
        self._fade(0.0)
        self._cut()
        shape = (1, self._student.samples.channels, crop, crop)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        pictures: list[Tensor] = []
        for codec in (self.codec, self._student):
            training = codec.module.training
            codec.module.eval()
            pictures.append(codec.forward(images).x_hat)
            codec.module.train(training)
        difference = float((pictures[0] - pictures[1]).abs().max())
        for (parameter, _), values in zip(self._gone, before, strict=True):
            parameter.copy_(values)
        if not difference < _TOLERANCE:
            raise ValueError(f"{_NO_PART}, but the two give pictures that differ by up to {difference:.2g}. {_CHOOSE}")

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Drop the gradient of weights that are gone: it would only make the others be clipped more."""
        if step >= self._num_steps:
            for parameter, gone in self._gone:
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(self._on_device(gone, parameter), 0)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Let what goes fade by one step more."""
        left = max(0.0, 1 - (step + 1) / self._num_steps)
        self._fade(left / (1 - step / self._num_steps) if left else 0.0)

    def _fade(self, factor: float) -> None:
        for parameter, gone in self._gone:
            parameter.copy_(torch.where(self._on_device(gone, parameter), parameter * factor, parameter))

    @staticmethod
    def _on_device(mask: Tensor, parameter: nn.Parameter) -> Tensor:
        return mask.to(parameter.device)

    def _cut(self) -> None:
        for cut in self._cuts:
            cut.take()

    @contextmanager
    def as_saved(self, codec: distillkit.CodecAdapter) -> Generator[distillkit.CodecAdapter]:
        """Yield the student, cut out of the large codec."""
        self._student.module.to(next(self.codec.module.parameters()).device)
        self._cut()
        yield self._student


_NO_PART = "expected a student that is a part of its teacher (the same layers with fewer channels)"
_CHOOSE = "Choose a pair of one design in two sizes."
