"""Optimisers and learning rates, by the names that a recipe uses."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from ..recipe.recipe import OptimizerSettings
from .muon import Muon


def build_optimizer(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the recipe's optimiser over `parameters`.

    Source: Vyas et al. (2024), arXiv 2409.11321, for SOAP.
    """
    if settings.name == "adam":
        return Adam(parameters, lr=settings.learning_rate)
    if settings.name == "sgd":
        return SGD(parameters, lr=settings.learning_rate)
    if settings.name == "muon":
        return Muon(parameters, settings.learning_rate)
    from pytorch_optimizer import SOAP

    # Wider dimensions (the 512 units of Swin V2's position-bias networks) cost more than they give.
    return SOAP(
        parameters,
        lr=settings.learning_rate,
        betas=(0.95, 0.95),
        weight_decay=0.0,
        precondition_frequency=10,
        max_precondition_dim=400,
    )


def learning_rate_factor(settings: OptimizerSettings, step: int, num_steps: int) -> float:
    """Return the factor on the learning rate at this step of a run: warm-up times the rate schedule, in [0, 1]."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.rate_schedule == "constant":
        return warmup
    return warmup * 0.5 * (1 + math.cos(math.pi * step / num_steps))
