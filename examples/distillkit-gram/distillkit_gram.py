"""A plugin for distillkit: alignment of Gram matrices, and a file that says what each run ended with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import distillkit


class GramAlignment(distillkit.LossTerm):
    """Mean squared difference of channel Gram matrices (unitless), 0 where they are equal.

    L = mean((G(P(f_S)) - G(f_T))^2),  G(f)_cd = mean over positions of f_c f_d

    f_S, f_T: features, shape (B, C_S, H, W) and (B, C_T, H, W). P: a 1x1 convolution to C_T channels where C_S differs,
    trained with the student and never exported.

    Source: Gatys et al. (2016), Image Style Transfer Using Convolutional Neural Networks, equation 3.
    Departure: the mean over positions in place of their sum, so that the loss does not depend on the crop.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            tap: role of the features to compare.
        """

        tap: str = "latent"

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Build the adapter.

        Raises:
            ValueError: the codecs do not share the tap.
        """
        super().__init__(config, shapes)
        if config.tap not in shapes.student:
            raise ValueError(f"tap: no tap '{config.tap}' in both codecs; there are {', '.join(shapes.student)}.")
        student, teacher = shapes.student[config.tap], shapes.teacher[config.tap]
        same = student.channels == teacher.channels
        self.adapter = nn.Identity() if same else nn.Conv2d(student.channels, teacher.channels, 1)

    def required_taps(self) -> set[str]:
        """Return the tap."""
        return {self.config.tap}

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the loss before any weight."""
        student, teacher = step.taps[self.config.tap]
        return F.mse_loss(gram(self.adapter(student)), gram(teacher))


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrices of features of shape (B, C, H, W): shape (B, C, C)."""
    flat = features.float().flatten(2)
    return torch.einsum("bcn,bdn->bcd", flat, flat) / flat.shape[2]


@distillkit.hookimpl
def register_loss_terms(register):
    """Called once, when plugins are loaded; the loss is `gram.alignment` in recipes."""
    register("alignment", GramAlignment)


@distillkit.hookimpl
def run_finished(run, model):
    """Called at the end of every run; a plugin may observe as well as register."""
    (run.folder / "gram.txt").write_text(f"{run.num_steps} steps, {model.stat().st_size} bytes\n")
