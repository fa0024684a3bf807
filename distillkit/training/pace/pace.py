"""How fast the weights move: the optimiser, and the learning rate at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ...hooks.loader import Plugins
from ...recipe.recipe import Recipe
from .fused import in_one_pass
from .optimizers import OptimizerBuilder
from .rates import RateSchedule


@final
class Pace:
    """The optimiser of a resolved recipe and its learning rate.

    Attributes:
        optimizer: over the parameters that are trained.
        schedule: of the learning rate.
        learning_rate: that was set.
        lowered: factor on the learning rate, below 1 where the run went back.
    """

    def __init__(self, recipe: Recipe, plugins: Plugins, parameters: Sequence[nn.Parameter]) -> None:
        settings = recipe.optimizer
        builder_class, config = plugins.configure("optimizer", settings.name, settings.options, "recipe optimizer")
        builder: OptimizerBuilder = builder_class(config)
        self._settings, self._num_steps = settings, recipe.num_steps
        self.optimizer: Optimizer = builder.build(parameters, settings.learning_rate)
        self.schedule = rate_schedule(recipe, plugins)
        self.learning_rate = settings.learning_rate
        self.lowered = 1.0
        # Steps are launched one by one where they cannot be recorded; torch would warn of it.
        self.optimizer.__dict__["_warned_capturable_if_run_uncaptured"] = True

    def set(self, step: int, phase_factor: float) -> None:
        """Set the learning rate of a step, counted from 0, in a phase with its factor."""
        warmup = min(1.0, (step + 1) / self._settings.warmup_steps) if self._settings.warmup_steps else 1.0
        factor = warmup * self.schedule.factor(step, self._num_steps) * phase_factor
        self.learning_rate = self._settings.learning_rate * factor * self.lowered
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.learning_rate)
            else:
                group["lr"] = self.learning_rate

    def keep_rate_on(self, device: torch.device) -> None:
        """Hold the learning rate in tensors on a device, where replayed steps read it."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.full((), self.learning_rate, device=device)

    def state_dict(self) -> dict[str, Any]:
        """Return the entries of a checkpoint."""
        state = self.optimizer.state_dict()
        groups = [{**group, "lr": self.learning_rate} for group in state["param_groups"]]
        return {
            "optimizer": {**state, "param_groups": groups},
            "rate_schedule": self.schedule.state_dict(),
            "rate_factor": self.lowered,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the entries of a checkpoint, which another kind of device may have written."""
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state.get("rate_schedule", {}))
        self.lowered = state.get("rate_factor", 1.0)


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimiser's state; how it computes depends on this device, not on the one that wrote the state."""
    here = ("fused", "capturable", "foreach", "lr")
    own = [{key: group[key] for key in here if key in group} for group in optimizer.param_groups]
    saved = state["param_groups"]
    groups = [{**group, **kept} for group, kept in zip(saved, own, strict=True)] if len(saved) == len(own) else saved
    optimizer.load_state_dict({**state, "param_groups": groups})


def aux_optimizer(quantiles: Sequence[nn.Parameter], recipe: Recipe) -> Optimizer | None:
    """Return the optimiser of the entropy bottlenecks' quantiles; None for a codec without."""
    options: dict[str, Any] = in_one_pass(quantiles)
    if not quantiles:
        return None
    optimizer = Adam(quantiles, recipe.optimizer.aux_learning_rate, **options)
    optimizer.__dict__["_warned_capturable_if_run_uncaptured"] = True
    return optimizer


def rate_schedule(recipe: Recipe, plugins: Plugins) -> RateSchedule:
    """Return the rate schedule of a resolved recipe."""
    choice = recipe.optimizer.rate
    schedule, config = plugins.configure("rate", choice.name, choice.options, "recipe optimizer.rate_schedule")
    return schedule(config)
