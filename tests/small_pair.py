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


class GainedPair(distillkit.CodecPair):
    """The same with many rates."""

    def build_teacher(self):
        return distillkit.GainedCodec(SmallPair(SmallPair.Config()).build_teacher(), num_levels=3)

    def build_student(self):
        return distillkit.GainedCodec(SmallPair(SmallPair.Config()).build_student(), num_levels=3)


class QuietPair(distillkit.CodecPair):
    """The same without quantisation noise, which depends on how a batch is divided."""

    def build_teacher(self):
        return _quiet(SmallPair(SmallPair.Config()).build_teacher())

    def build_student(self):
        return _quiet(SmallPair(SmallPair.Config()).build_student())


class QuietGainedPair(distillkit.CodecPair):
    """With many rates and without noise."""

    def build_teacher(self):
        return distillkit.GainedCodec(_quiet(SmallPair(SmallPair.Config()).build_teacher()), num_levels=3)

    def build_student(self):
        return distillkit.GainedCodec(_quiet(SmallPair(SmallPair.Config()).build_student()), num_levels=3)


def _quiet(codec):
    for model in codec.modules():
        if hasattr(model, "_quantized_cdf"):
            quantize = model.quantize
            model.quantize = lambda x, mode, means=None, real=quantize: x if mode == "noise" else real(x, mode, means)
    return codec


class FreezeFirst(distillkit.PhaseSchedule):
    """The synthesis transform alone, then everything; terms, if there are some, in the second phase."""

    def phases(self, num_steps, terms):
        first = num_steps // 2
        return [
            distillkit.Phase("synthesis", first, trainable=("g_s.*",)),
            distillkit.Phase("all", num_steps - first, dict.fromkeys(terms, 1.0)),
        ]


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


class QuietOutput(distillkit.LossTerm):
    """A regulariser: the mean square of the reconstruction."""

    needs_teacher = False

    def required_taps(self):
        return set()

    def forward(self, step):
        return step.output.x_hat.square().mean()


@distillkit.hookimpl
def register_pairs(register):
    register("pair", SmallPair)
    register("quiet", QuietPair)
    register("gained", GainedPair)
    register("quiet_gained", QuietGainedPair)


@distillkit.hookimpl
def register_loss_terms(register):
    register("broken", Broken)
    register("quiet_output", QuietOutput)


@distillkit.hookimpl
def register_phase_schedules(register):
    register("freeze_first", FreezeFirst)
