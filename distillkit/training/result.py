"""What a run leaves: its model, the best one on held-out pictures or the last."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ..errors import CheckpointError
from ..model.adapters import CodecAdapter
from ..model.file import save_model
from ..model.tensors import read_tensors, write_tensors
from ..recipe.recipe import Recipe
from .distributed import Ranks
from .extensions.view import ModelView
from .folder.run_folder import RunFolder
from .setup.prepare import Setup
from .validation import Validation

_LOG = logging.getLogger("distillkit")


@final
class Result:
    """Measures the model of a run on the way, keeps the best, and writes the one that the recipe wants.

    Attributes:
        provenance: what the weights depend on, for the model's file.
    """

    def __init__(self, recipe: Recipe, run: RunFolder, setup: Setup, ranks: Ranks) -> None:
        """Read the held-out pictures, if the recipe has some."""
        self._recipe, self._run, self._setup, self._ranks = recipe, run, setup, ranks
        self.provenance: dict[str, Any] = {}
        held_out, objective = recipe.validation, setup.objective
        self._validation = Validation(held_out, recipe, objective, ranks, setup.codec.samples) if held_out else None

    def validate(self, step: int) -> dict[str, float] | None:
        """Measure, if that is due once `step` steps are done, and keep the model if there is no better one.

        Returns:
            What observers receive, see `hookspecs.validated`; None if it was not due.
        """
        if self._validation is None or not self._validation.due(step, self._recipe.num_steps):
            return None
        with self._setup.extensions.as_saved() as codec:
            measured: dict[str, float] = {"step": step, **self._validation.measure(codec)}
        best = self._ranks.first(lambda: _measured(self._run.best))
        if best is None or measured["rd_cost"] < best["rd_cost"]:
            best = measured
            self._ranks.first(lambda: self._save(self._run.best, ModelView(self._setup.extensions).copy(), measured))
        return {**measured, "best_step": best["step"], "best_rd_cost": best["rd_cost"]}

    def finish(self) -> None:
        """Write the run's model."""
        validation, run = self._recipe.validation, self._run
        if validation is not None and validation.save == "best" and run.best.exists():
            write_tensors(run.model, *read_tensors(run.best))
            return
        with self._setup.extensions.as_saved() as codec:
            codec.module.eval().cpu()
            self._save(run.model, codec, None)

    def _save(self, path: Path, codec: CodecAdapter, measured: Mapping[str, float] | None) -> None:
        recipe = self._recipe
        about = (recipe.pair.name, self._setup.options, recipe.trains, recipe.lmbda, self.provenance)
        objective = recipe.objective.model_dump(mode="json")
        save_model(path, codec, *about, objective=objective, validation=measured)


def _measured(path: Path) -> dict[str, float] | None:
    """Return what was measured of the model in a file; None if there is none, or it is damaged."""
    if not path.is_file():
        return None
    try:
        measured = json.loads(read_tensors(path)[1]["validation"])
        return {"step": int(measured["step"]), "rd_cost": float(measured["rd_cost"])}
    except (CheckpointError, KeyError, TypeError, ValueError, RecursionError) as error:
        _LOG.warning("%s: %s The search for the best model starts again here.", path.name, error)
        return None
