"""The observer that shows a run to its user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from rich.console import Console

from ...errors import printable
from ...hooks.hookspecs import hookimpl
from ..phases import Phase
from ..run_info import RunInfo
from .screens import Moment, Screen, screen_for


@final
class ProgressDisplay:
    """Shows what a run does, then its rate, quality, losses and the time left.

    In a terminal and in a notebook the newest figures replace the ones before; elsewhere, as in a file, each gets a
    line. Figures are never cut: where there is little room they continue on the next line.

    Attributes:
        console: the output.
        has_run: whether a run started; false if it was done already.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Write to a console, by default to stderr."""
        self.console = console or Console(stderr=True, markup=False, emoji=False)
        self.has_run = False
        self._screen: Screen | None = None
        self._shown = self._phase = self._validated = self._best = ""

    @hookimpl
    def run_started(self, run: RunInfo) -> None:
        """Show what the run does, and open the display."""
        self.close()  # a run that went back starts again
        self.has_run = True
        lines = [f"{run.name}: {note}" for note in run.notes]
        if self._shown != str(run.folder):
            self._shown, self._validated, self._best = str(run.folder), "", ""
            lines = [f"{run.name}", *(f"  {name:<9} {text}" for name, text in run.header), *lines]
        if lines:
            self.console.print(printable("\n".join(lines)), highlight=False, markup=False, soft_wrap=True)
        self._screen = screen_for(self.console)
        self._screen.show(Moment(run.name, "", run.start_step, run.num_steps, "", None))

    @hookimpl
    def phase_started(self, run: RunInfo, phase: Phase, step: int) -> None:
        """Remember the phase."""
        self._phase = phase.name

    @hookimpl
    def metrics_logged(self, run: RunInfo, metrics: Mapping[str, float | int | str]) -> None:
        """Show the newest figures."""
        quality = "ms_ssim_db" if "ms_ssim_db" in metrics else "psnr_db"  # what the run trains for
        losses = [f"{key.partition('/')[2]} {value:.4g}" for key, value in metrics.items() if key.startswith("loss/")]
        cost = f"RD cost {metrics['rd_cost']:.4g}"
        figures = [f"{metrics['rate_bpp']:.3f} bpp", f"{metrics[quality]:.2f} dB", cost, *losses, self._validated]
        step = int(metrics["step"])
        left = float(metrics["seconds_per_step"]) * (run.num_steps - step)
        self._show(Moment(run.name, self._phase, step, run.num_steps, "  ".join(filter(None, figures)), left))

    @hookimpl
    def validated(self, run: RunInfo, metrics: Mapping[str, float | int]) -> None:
        """Show what was measured on the held-out crops, and which model is the best."""
        self._validated = f"held out {metrics['rd_cost']:.4g}"
        self._best = f"step {metrics['best_step']}, RD cost {metrics['best_rd_cost']:.4g}"
        figures = f"{metrics['rate_bpp']:.3f} bpp  {metrics['psnr_db']:.2f} dB  RD cost {metrics['rd_cost']:.4g}"
        text = f"held out: {figures}  (best: {self._best})"
        self._show(Moment(run.name, self._phase, int(metrics["step"]), run.num_steps, text, None))

    def _show(self, moment: Moment) -> None:
        assert self._screen is not None
        self._screen.show(moment)

    @hookimpl
    def run_finished(self, run: RunInfo, model: Path) -> None:
        """Close the display, and report which model was saved."""
        self.close()
        if run.recipe.validation is not None and self._best:
            which = (
                f"the best ({self._best})" if run.recipe.validation.save == "best" else f"the last (best: {self._best})"
            )
            self.console.print(f"{run.name}: {model.name} is {which}", highlight=False)

    def close(self) -> None:
        """Give the terminal back; also called when a run ends by an error."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None
