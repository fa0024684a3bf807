"""What is summed between two lines of metrics, without making the device wait."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from .distributed import Ranks
from .losses import psnr_from_mse
from .objectives.objective import Objective
from .phases import Phase
from .task import StepLosses


@final
class MetricsWindow:
    """Sums since the last line of metrics, on the device: read at log time, so that no step waits for them."""

    def __init__(self, terms: Sequence[str], start: int, ranks: Ranks) -> None:
        """Begin at step `start`, with the loss terms (full names) of its phase; figures are of all `ranks` together."""
        self.terms, self.start, self._ranks = list(terms), start, ranks
        self._names = ["rate", "mse", "distortion", "rate-distortion", "gradient", *self.terms]
        self._sums: Tensor | None = None
        self._bad: Tensor | None = None
        self._counts = dict.fromkeys(self._names, 0)
        self._started = time.perf_counter()

    def add(self, step: int, losses: StepLosses, norm: Tensor) -> None:
        """Add one step's losses and the norm of its gradient before clipping."""
        zero = losses.rd.cost.new_zeros(())
        values = [losses.rd.rate_bpp, losses.rd.mse, losses.rd.distortion, losses.rd.cost, norm]
        values += [losses.terms.get(name, zero) for name in self.terms]
        for name in self._names:
            self._counts[name] += name in losses.terms or name not in self.terms
        vector = torch.stack([value.detach().float().to(zero.device) for value in values])
        bad = torch.where(vector.isfinite(), math.inf, float(step))
        self._sums = vector if self._sums is None else self._sums + vector
        self._bad = bad if self._bad is None else torch.minimum(self._bad, bad)

    def state(self, step: int) -> dict[str, Any]:
        """Return what was summed up to `step`, of all processes: a run that continues there ends the same window."""
        return {
            "step": step,
            "start": self.start,
            "sums": self._ranks.gather(None if self._sums is None else self._sums.cpu()),
            "counts": dict(self._counts),
            "seconds": time.perf_counter() - self._started,
        }

    def restore(self, state: Mapping[str, Any] | None, device: torch.device) -> None:
        """Take over what `state` returned; another number of processes shares the mean of what each had summed."""
        if state is None or state["step"] != self.start or state["counts"].keys() != self._counts.keys():
            return
        sums = [each for each in state["sums"] if each is not None]
        if sums:
            own = sums[self._ranks.rank] if len(sums) == self._ranks.num else torch.stack(sums).mean(0)
            self._sums, self._bad = own.to(device), torch.full_like(own, math.inf, device=device)
        self.start, self._counts = state["start"], dict(state["counts"])
        self._started = time.perf_counter() - state["seconds"]

    def means(self) -> dict[str, float]:
        """Return the mean of each figure over the steps in which it was computed."""
        assert self._sums is not None
        return {
            name: value / max(1, self._counts[name])
            for name, value in zip(self._names, self._ranks.mean(self._sums).tolist(), strict=True)
        }

    def first_not_finite(self) -> tuple[int, str] | None:
        """Return the first step at which a figure was NaN or infinite, and which one; None if all were finite."""
        if self._bad is None:
            return None
        # The losses come first in blame: a gradient that is not finite follows from a loss that is not.
        order = [*self.terms, "rate", "mse", "distortion", "rate-distortion", "gradient"]
        steps = dict(zip(self._names, self._ranks.least(self._bad).tolist(), strict=True))
        step, _, name = min((steps[name], order.index(name), name) for name in self._names)
        return None if math.isinf(step) else (int(step), f"loss '{name}'" if name in self.terms else f"the {name}")

    def metrics(
        self,
        step: int,
        phase: Phase,
        step_in_phase: int,
        learning_rate: float,
        scales: Mapping[str, Tensor],
        objective: Objective,
    ) -> dict[str, float | int | str]:
        """Return what observers get once `step` steps are done, see `hookspecs.metrics_logged`."""
        means = self.means()
        quality = {"psnr_db": psnr_from_mse(means["mse"])}
        if objective.metric == "ms-ssim":
            quality["ms_ssim_db"] = -10 * math.log10(max(means["distortion"], 1e-12))
        metrics: dict[str, float | int | str] = {
            "step": step,
            "phase": phase.name,
            "rate_bpp": means["rate"],
            **quality,
            "rd_cost": means["rate-distortion"],
            "learning_rate": learning_rate,
            "gradient_norm": means["gradient"],
            "seconds_per_step": self.seconds_per_step(step),
        }
        for name, weight in phase.weights_at(step_in_phase - step_in_phase % phase.every).items():
            if self._counts[name]:
                metrics[f"loss/{name}"] = means[name]
                metrics[f"weight/{name}"] = weight * float(scales.get(name, 1.0))
        return metrics

    def seconds_per_step(self, step: int) -> float:
        """Return the mean wall-clock time of a step, `step` steps being done."""
        return (time.perf_counter() - self._started) / max(1, step - self.start)
