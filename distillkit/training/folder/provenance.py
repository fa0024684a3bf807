"""Where a run comes from: versions, machine, commit and command, in its folder, its model's file and its page."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ...data.record import DataRecord, check_data
from ...errors import TrainingError
from ...recipe.recipe import Recipe
from ..distributed import Ranks
from ..setup.prepare import Setup
from .run_folder import RunFolder

FILE = "provenance.jsonl"  #: in the run folder: a line for each process that began or continued the run
_LIBRARIES = ("distillkit-lic", "torch", "compressai", "timm", "constriction", "numpy", "pillow", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of Python, of the libraries that a result depends on, and of all installed plugins."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    distributions = (entry_point.dist for entry_point in metadata.entry_points(group="distillkit"))
    return found | {each.name: each.version for each in distributions if each is not None}


def commit(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder, with `+` if files differ; None without a repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    number = git("rev-parse", "HEAD")
    if number is None:
        return None
    return number + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def of_weights(data_digest: str) -> dict[str, Any]:
    """Return what a model's file holds of it: what its weights depend on, and nothing about the machine or its user.

    Args:
        data_digest: of the training images, see `DataRecord.digest`.
    """
    return {"versions": versions(), "commit": commit(Path.cwd()), "data": data_digest}


def note_start(
    run: RunFolder, recipe: Recipe, setup: Setup, ranks: Ranks, start_step: int
) -> tuple[dict[str, Any], list[str]]:
    """Record a run's images and where it comes from, as a process begins it; of one that continues, compare the images.

    Returns:
        What the model's file holds, see `of_weights`, and what the user should know.

    Raises:
        TrainingError: the images are not those with which the run began, or a file cannot be written.
    """
    images = DataRecord.of(setup.dataset.paths, recipe.data.train, hashes=recipe.data.hashes)
    note = check_data(run.data, images, has_begun=run.has_begun)
    weights = of_weights(images.digest)
    line = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "start_step": start_step,
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": str(ranks.device),
        "processes": ranks.num,
        "command": shlex.join(sys.argv),
        **weights,
    }
    path = run.path / FILE
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written: {error.strerror}; make room, and start again.") from None
    return weights, [] if note is None else [note]


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run folder's record; those that cannot be read are left out."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return list(_objects(lines))


def _objects(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            yield content
