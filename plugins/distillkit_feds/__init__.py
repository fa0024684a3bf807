"""FEDS as a plugin set: feature alignment, an entropy-ranked channel loss, and a staged three-phase schedule.

Source: Fu, Liang, Fang, Han, "FEDS: Feature and Entropy-Based Distillation Strategy for Efficient Learned Image
Compression", arXiv 2503.06399 (2025). The paper names these three parts; its formulas and settings are not public, so
each docstring says under "Departure" what is our own choice and why.
"""

from __future__ import annotations

from collections.abc import Callable

import distillkit

from .alignment import FeatureAlignment
from .channel_entropy import ChannelEntropy
from .staged import Staged


@distillkit.hookimpl
def register_loss_terms(register: Callable[[str, type[distillkit.LossTerm]], None]) -> None:
    """Register the two losses."""
    register("alignment", FeatureAlignment)
    register("channel_entropy", ChannelEntropy)


@distillkit.hookimpl
def register_phase_schedules(register: Callable[[str, type[distillkit.PhaseSchedule]], None]) -> None:
    """Register the schedule."""
    register("staged", Staged)
