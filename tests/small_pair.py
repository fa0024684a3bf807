"""A plugin as an outsider would write it: a pair small enough for the quick tests, on CompressAI's own codecs."""

from __future__ import annotations

import distillkit


class SmallPair(distillkit.CodecPair):
    """Mean-scale hyperpriors of a few channels."""

    class Config(distillkit.ComponentConfig):
        """Options."""

        teacher_latent: int = 16
        student_latent: int = 16

    def build_teacher(self):
        from compressai.models import MeanScaleHyperprior

        return MeanScaleHyperprior(16, self.config.teacher_latent)

    def build_student(self):
        from compressai.models import MeanScaleHyperprior

        return MeanScaleHyperprior(8, self.config.student_latent)


class Broken(distillkit.LossTerm):
    """Not a number from the given call on."""

    class Config(distillkit.LossConfig):
        """Options."""

        good_calls: int = 0

    def __init__(self, config, shapes):
        super().__init__(config, shapes)
        self.calls = 0

    def required_taps(self):
        return {"latent"}

    def forward(self, step):
        self.calls += 1
        loss = (step.taps["latent"].student - step.taps["latent"].teacher.mean()).square().mean()
        return loss * float("nan") if self.calls > self.config.good_calls else loss


@distillkit.hookimpl
def register_pairs(register):
    register("pair", SmallPair)


@distillkit.hookimpl
def register_loss_terms(register):
    register("broken", Broken)
