"""What can be registered: a line for each kind of component; a new kind is such a line, a hook and a base class."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from .components import Component


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Attributes:
        name: as errors and `distillkit plugins` call it.
        hook: the hook that registers components of this kind, see `hookspecs`.
        base: the class that they derive from: its module inside distillkit, and its name.
        title: heading of the reference of components.
    """

    name: str
    hook: str
    base: str
    title: str

    def base_class(self) -> type[Component]:
        """Return the class that components of this kind derive from; its module is imported at first use."""
        module, _, name = self.base.rpartition(".")
        return getattr(import_module(f"distillkit.{module}"), name)


#: name -> kind, in the order in which a plugin's components are registered.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("pair", "register_pairs", "taps.pair.CodecPair", "Pairs"),
        Kind("taps", "register_feature_taps", "taps.provider.TapProvider", "Providers of taps"),
        Kind("loss", "register_loss_terms", "training.losses.LossTerm", "Losses"),
        Kind("objective", "register_objectives", "training.objectives.objective.Objective", "Objectives"),
        Kind("schedule", "register_phase_schedules", "training.phases.PhaseSchedule", "Schedules"),
        Kind("optimizer", "register_optimizers", "training.pace.optimizers.OptimizerBuilder", "Optimisers"),
        Kind("rate", "register_rate_schedules", "training.pace.rates.RateSchedule", "Rate schedules"),
        Kind("extension", "register_step_extensions", "training.extensions.base.StepExtension", "Step extensions"),
    )
}
