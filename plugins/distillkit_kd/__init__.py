"""Other published distillation losses, for comparison: each with its source, and what differs from it."""

from __future__ import annotations

from collections.abc import Callable

import distillkit

from .attention_transfer import AttentionTransfer
from .channel_wise import ChannelWise
from .gaussian_kl import GaussianKl
from .hint import Hint
from .latent import HyperLatentMse, LatentMse
from .mask_decay import MaskDecay
from .masked_generative import MaskedGenerative
from .output import OutputMse
from .progressive import Progressive
from .relational import Relational


@distillkit.hookimpl
def register_loss_terms(register: Callable[[str, type[distillkit.LossTerm]], None]) -> None:
    """Register the losses."""
    register("attention_transfer", AttentionTransfer)
    register("channel_wise", ChannelWise)
    register("gaussian_kl", GaussianKl)
    register("hint", Hint)
    register("hyper_latent", HyperLatentMse)
    register("latent", LatentMse)
    register("masked_generative", MaskedGenerative)
    register("output", OutputMse)
    register("relational", Relational)


@distillkit.hookimpl
def register_phase_schedules(register: Callable[[str, type[distillkit.PhaseSchedule]], None]) -> None:
    """Register the schedule that replaces stage after stage."""
    register("progressive", Progressive)


@distillkit.hookimpl
def register_step_extensions(register: Callable[[str, type[distillkit.StepExtension]], None]) -> None:
    """Register what acts around the optimiser's step."""
    register("mask_decay", MaskDecay)
