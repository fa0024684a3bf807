"""An observer that writes a run's metrics for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ...errors import DistillkitError
from ...hooks.hookspecs import hookimpl
from ..phases import Phase
from ..run_info import RunInfo


@final
class TensorBoardWriter:
    """Writes every metric, and where phases begin, into the folder `tensorboard` of the run.

    A run that continues after a checkpoint replaces what was written after it: TensorBoard shows one line.

    Raises:
        DistillkitError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise DistillkitError("TensorBoard: not installed; `pip install 'distillkit-lic[tensorboard]'`.") from None
        self._open: Any = SummaryWriter
        self._writer: Any = None

    @hookimpl
    def run_started(self, run: RunInfo) -> None:
        """Open the event file."""
        self._writer = self._open(str(run.folder / "tensorboard"), purge_step=run.start_step + 1)

    @hookimpl
    def phase_started(self, phase: Phase, step: int) -> None:
        """Note the phase."""
        self._writer.add_text("phase", phase.name, step + 1)

    @hookimpl
    def metrics_logged(self, metrics: Mapping[str, float | int | str]) -> None:
        """Write one point of every curve."""
        step = int(metrics["step"])
        for name, value in metrics.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)

    @hookimpl
    def validated(self, metrics: Mapping[str, float | int]) -> None:
        """Write one point of the curves on held-out crops."""
        for name in metrics.keys() - {"step", "best_step", "best_rd_cost"}:
            self._writer.add_scalar(f"validation/{name}", metrics[name], int(metrics["step"]))

    @hookimpl
    def run_finished(self, model: Path) -> None:
        """Close the event file."""
        self.close()

    def close(self) -> None:
        """Write the rest; also called when a run ends by an error."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
