"""What plugin authors test with: each check builds a component, runs it, and raises what is wrong with it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kit import check_loss_term as check_loss_term
    from .kit import check_schedule as check_schedule
    from .kit import check_taps as check_taps
    from .objectives import check_objective as check_objective
    from .pair_check import check_pair as check_pair
    from .steps import check_optimizer as check_optimizer
    from .steps import check_rate_schedule as check_rate_schedule
    from .steps import check_step_extension as check_step_extension

# Loaded at first use: the fixtures beside them are in every pytest of the environment, and must not import torch there.
_HOME = {
    "check_loss_term": "kit",
    "check_objective": "objectives",
    "check_optimizer": "steps",
    "check_pair": "pair_check",
    "check_rate_schedule": "steps",
    "check_schedule": "kit",
    "check_step_extension": "steps",
    "check_taps": "kit",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'distillkit.testing' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
