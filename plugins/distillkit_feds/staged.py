"""FEDS's three phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, final

from pydantic import Field

import distillkit

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@final
class Staged(distillkit.PhaseSchedule):
    """Feature alignment, then channel-level distillation, then fine-tuning without a teacher.

    L = RD + a(t) L_align + b(t) L_chan
    Phase 1: a on, b off. Phase 2: b on, a falls linearly to 0 within a share of the phase, after which the teacher
    stops at its latent. Phase 3: RD only, at a lower learning rate; the teacher does not run.

    Source: FEDS (arXiv 2503.06399) trains in three stages: feature alignment, channel-level distillation, fine-tuning.
    Departure: the paper's lengths, weights and rates are not public. Lengths of 40, 40 and 20 % and the low learning
    rate at the end follow the practice of this family of codecs; weights are balanced by gradient norms (see
    `Phase.balance`), since unscaled terms are inert beside 255^2 lmbda MSE.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            alignment: terms of phase 1. Those that the recipe does not list are left out, so that an ablation keeps the
                same phases.
            channel: terms of phase 2, likewise.
            alignment_share: share of the steps that phase 1 takes.
            channel_share: share of phase 2; fine-tuning takes the rest.
            alignment_weight: a in phase 1.
            channel_weight: b in phase 2.
            anneal_share: share of phase 2 in which a falls to 0.
            balance: if above 0, weights are relative to the balanced scale, and this is the ratio of gradient norms; if
                0, they are used unchanged.
            finetune_learning_rate: factor on the learning rate in phase 3.
            every: in phases 1 and 2, the terms are on in every N-th step, at N times their weight, and the
                teacher runs in no other. 2 costs half, and did as well as 1 at `lite` scale (docs/results-older.md).
        """

        alignment: tuple[str, ...] = ("feds.alignment",)
        channel: tuple[str, ...] = ("feds.channel_entropy",)
        alignment_share: Share = 0.4
        channel_share: Share = 0.4
        alignment_weight: Positive = 1.0
        channel_weight: Positive = 1.0
        anneal_share: Share = 0.5
        balance: Annotated[float, Field(ge=0)] = 0.5
        finetune_learning_rate: Positive = 0.1
        every: Annotated[int, Field(ge=1)] = 1

    def phases(self, num_steps: int, terms: Sequence[str]) -> list[distillkit.Phase]:
        """Return the three phases.

        Raises:
            ValueError: a term plays neither part, or the shares exceed 1.
        """
        config = self.config
        for term in terms:
            if term not in (*config.alignment, *config.channel):
                raise ValueError(
                    f"it has no place for '{term}'. List it under `alignment` (phase 1) or `channel` (phase 2) of the "
                    "schedule."
                )
        first = round(num_steps * config.alignment_share)
        second = round(num_steps * (config.alignment_share + config.channel_share)) - first
        third = num_steps - first - second
        if third < 0:
            raise ValueError("alignment_share and channel_share: expected at most 1 together.")
        alignment = [term for term in config.alignment if term in terms]
        channel = [term for term in config.channel if term in terms]
        fall = distillkit.Ramp(config.alignment_weight, 0.0, round(second * config.anneal_share))
        balance = config.balance or None
        return [
            distillkit.Phase(
                "align", first, dict.fromkeys(alignment, config.alignment_weight), balance=balance, every=config.every
            ),
            distillkit.Phase(
                "channel",
                second,
                {**dict.fromkeys(alignment, fall), **dict.fromkeys(channel, config.channel_weight)},
                balance=balance,
                every=config.every,
            ),
            distillkit.Phase("finetune", third, learning_rate=config.finetune_learning_rate),
        ]
