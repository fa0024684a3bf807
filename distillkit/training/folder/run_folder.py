"""The folder of a run: its files, and whether it belongs to this recipe."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ...errors import CheckpointError, DistillkitError, DivergedError, TrainingError
from ...recipe.recipe import TEACHER, Recipe
from ..setup.resolve import resolve
from .checkpoint import checkpoint_name, list_checkpoints, load_checkpoint
from .lock import NAME as LOCK

if TYPE_CHECKING:
    from ...hooks.loader import Plugins

#: Keys that do not change what a run computes, and so may differ when it continues.
_FREE_KEYS = (
    "log_every",
    "checkpoint_every",
    "accumulate",
    "on_divergence",
    "device",
    "compile",
    "data.num_workers",
    "data.cache_mib",
    "data.cache",
    "data.hashes",
    "extensions",  # an empty table; the entries of others have their own keys
    "teachers",
)
_PATHS = ("data.train", "validation.data", "teacher", "initial_weights")


@final
@dataclass(frozen=True)
class RunFolder:
    """Paths of a run: `recipe.toml`, `metrics.jsonl`, `checkpoints/`, `calibration/`, `model.safetensors`."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The recipe with every effective value."""
        return self.path / "recipe.toml"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model; it exists once the run is done."""
        return self.path / "model.safetensors"

    @property
    def data(self) -> Path:
        """The record of the training images, see `DataRecord`."""
        return self.path / "data.json"

    @property
    def has_begun(self) -> bool:
        """Whether the folder holds something that a run can continue from."""
        found = (list_checkpoints(self.checkpoints), self.path.glob("calibration/*"), self.path.glob(self.model.name))
        return any(True for paths in found for _ in paths)

    @property
    def best(self) -> Path:
        """The model with the least cost in a validation so far."""
        return self.path / "best.safetensors"

    def calibration(self, term: str) -> Path:
        """The record that a loss term measured."""
        return self.path / "calibration" / f"{term}.json"

    def open(self, recipe: Recipe, plugins: Plugins | None = None) -> int | None:
        """Make the folder for a resolved recipe, or check that it holds a run of the same one.

        The same with more steps lengthens the run: the model of a finished one is kept under its number of steps.

        If the folder's run ended before it left anything to continue from (a mistake in its recipe), any recipe is
        accepted.

        Args:
            recipe: of the run.
            plugins: with which the recipe was resolved, see `check_same`.

        Returns:
            The steps that the run had, if it is lengthened.

        Raises:
            TrainingError: the folder holds something else, or a run of another recipe; names the keys that differ.
        """
        lengthened: int | None = None
        self.check_free()
        if self.recipe_file.exists() and self.has_begun:
            before = Recipe.load(self.recipe_file).num_steps
            lengthened = before if before < recipe.num_steps else None
            same = recipe if lengthened is None else recipe.model_copy(update={"num_steps": before})
            self.check_same(same, plugins)
            if lengthened is not None and not list_checkpoints(self.checkpoints):
                raise TrainingError(
                    f"run folder {self.path}: it has {before} steps and no checkpoint from which it could continue to "
                    f"{recipe.num_steps}. Choose another folder, or start from its model (initial_weights)."
                )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if lengthened is not None and self.model.exists():
                self.model.replace(self.path / f"model-{lengthened:08d}.safetensors")
            recipe.save(self.recipe_file)
        except OSError as error:
            raise TrainingError(
                f"run folder {self.path}: cannot be written: {error.strerror}; choose another place."
            ) from None
        return lengthened

    def check_free(self) -> None:
        """Check that the folder is new, empty or of a run.

        Raises:
            TrainingError: it holds other files.
        """
        if not self.path.exists() or self.recipe_file.exists():
            return
        if self.path.is_file() or any(path.name != LOCK for path in self.path.iterdir()):
            raise TrainingError(
                f"run folder {self.path}: expected a new, empty or run folder; it holds other files. Choose another."
            )

    def check_same(self, recipe: Recipe, plugins: Plugins | None = None, *, paths_too: bool = True) -> None:
        """Check that the folder holds a run of this resolved recipe.

        Args:
            recipe: what it should be.
            plugins: give options that have come since the run began their defaults; without, such options differ.
            paths_too: whether data and other models must have the same paths; not for a run from another machine.

        Raises:
            TrainingError: it is a run of another recipe; names the keys that differ.
        """
        stored = Recipe.load(self.recipe_file)
        if plugins is not None:
            with contextlib.suppress(DistillkitError):  # of a component that is gone: then it is another recipe
                stored = resolve(stored, plugins)
        old, new = _flat(stored), _flat(recipe)
        free = _FREE_KEYS if paths_too else (*_FREE_KEYS, *_PATHS)
        if not paths_too:
            free = (*free, *(key for key in new if key.startswith("teachers.")))
        differing = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and k not in free]
        if differing:
            changes = "; ".join(f"{k}: {old.get(k)} there, {new.get(k)} now" for k in differing[:5])
            raise TrainingError(
                f"run folder {self.path}: it holds a run of another recipe ({changes}). To continue it as it is, "
                "`distillkit resume` it; else choose another folder, or remove this one."
            )

    def check_teachers(self, fingerprints: Mapping[str, str] | str, now: Mapping[str, str]) -> None:
        """Check that the teachers are those with which the run began.

        Args:
            fingerprints: by the teacher's name, as the run began; a string for a run of the time before teachers had
                names.
            now: the same for the present files.

        Raises:
            CheckpointError: the weights of one have changed.
        """
        if isinstance(fingerprints, str):
            fingerprints = {TEACHER: fingerprints} if fingerprints else {}
        for name in sorted(fingerprints.keys() | now.keys()):
            before, after = fingerprints.get(name, "none"), now.get(name, "none")
            if before != after:
                raise CheckpointError(
                    f"run folder {self.path}: the weights of {name} changed since the run began (fingerprint "
                    f"{before[:8]} then, {after[:8]} now). Bring the old teacher back, or start a new run."
                )

    def diverged(self, name: str, step: int) -> DivergedError:
        """Return the error that `name` was not finite at a step."""
        state, _ = self.newest_state()
        kept = f"The checkpoint after step {state['step']} is kept" if state else "No checkpoint was written yet"
        return DivergedError(
            f"run {self.path.name}: {name} was not finite at step {step}. {kept}; lower the learning rate "
            "or the term's weight and start a new run, or look at the batch of that step."
        )

    def newest_state(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest checkpoint that is whole (None if there is none), and a report on those that are damaged.

        Raises:
            CheckpointError: there are checkpoints, but every one is damaged.
        """
        notes: list[str] = []
        paths = list_checkpoints(self.checkpoints)
        for path in reversed(paths):
            try:
                state = load_checkpoint(path)
                step = state.get("step")
                if type(step) is int and path.name == checkpoint_name(step):
                    return state, notes
                notes.append(
                    f"{path}: it is left alone, for it holds step {step}: a copy? Going back to the one before."
                )
            except CheckpointError as error:
                notes.append(f"{error} Going back to the one before.")
        if paths:
            raise CheckpointError(
                f"run folder {self.path}: every checkpoint is damaged ({', '.join(p.name for p in paths)}). Remove "
                "them to start this run again from its first step."
            )
        return None, notes


def _flat(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def visit(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                visit(item, f"{path}.{key}" if path else key)
        elif value is not None:
            flat[path] = value

    visit(json.loads(recipe.model_dump_json()), "")
    return flat
