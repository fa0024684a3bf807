"""Carry out a run in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ..data.killed import killed_workers_reported
from ..errors import DivergedError, TrainingError
from ..hooks.loader import Plugins, load_plugins
from ..recipe.recipe import Recipe
from .display.header import header
from .distributed import Ranks
from .folder.lock import only_here
from .folder.provenance import note_start
from .folder.run_folder import RunFolder
from .lengthen import lengthening
from .observers import MetricsFile
from .preemption import stop_on_signal
from .run_info import RunInfo
from .setup.prepare import prepare
from .setup.resolve import resolve, timeline_of
from .setup.stages import check_batches
from .trainer import Trainer


def train(
    recipe: Recipe, folder: str | Path, *, plugins: Plugins | None = None, observers: Sequence[object] = ()
) -> Path:
    """Carry out a run, or its remaining steps, and return the file of the trained model.

    A folder that holds a finished run of the same recipe is not changed; an unfinished one continues from its newest
    whole checkpoint, bit for bit as if it had never stopped (on a CPU). More steps than it had lengthen it.

    Args:
        recipe: what to do.
        folder: the run folder, see `RunFolder`.
        plugins: where components are registered; by default the installed plugins.
        observers: objects with observer hooks, for this run only.

    Raises:
        DistillkitError: bad input, or a loss that is not finite.
        TrainingStopped: the process got SIGTERM; the current step was finished and saved.
        KeyboardInterrupt: the user pressed Ctrl-C; the step was saved, unless it was pressed twice.
    """
    plugins = plugins or load_plugins()
    recipe = resolve(recipe, plugins)
    ranks = Ranks(recipe.device)
    with ranks.on_device(), ExitStack() as stack:
        check_batches(timeline_of(recipe, plugins), recipe, ranks)
        run = RunFolder(Path(folder).resolve())
        ranks.first(run.check_free)
        before = ranks.first(lambda: stack.enter_context(only_here(run.path)) or run.open(recipe, plugins))
        if ranks.first(run.model.exists):
            return run.model
        state, notes = ranks.all(run.newest_state)
        trainer = ranks.all(lambda: Trainer(recipe, run, plugins, prepare(recipe, plugins), ranks))
        stack.callback(trainer.setup.dataset.close)
        start_step = ranks.all(lambda: trainer.restore(state)) if state else 0
        if len(set(ranks.gather(start_step))) > 1:
            raise TrainingError(f"run folder {run.path}: the processes see different files. Put it on a shared disk.")
        trainer.result.provenance, more = ranks.first(lambda: note_start(run, recipe, trainer.setup, ranks, start_step))
        if start_step:
            notes.append(f"continues after step {start_step}")
        more += lengthening(recipe, plugins, before, start_step) if before else []
        about = (run.path.name, run.path, recipe, start_step, recipe.num_steps)
        shown = ranks.first(lambda: header(recipe, trainer.setup, run.path, ranks, trainer.precision.name))
        info = RunInfo(*about, (*notes, *more, *trainer.setup.notes), trainer.view, shown)
        observing = plugins.observing([MetricsFile(), *observers])
        with observing, killed_workers_reported(), stop_on_signal() as stop:
            while True:
                try:
                    trainer.run(info, stop)
                    break
                except DivergedError as error:
                    info = trainer.go_back(info, error)
    return run.model
