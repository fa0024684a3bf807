"""Where a page's figures come from: machine, versions, commit and data of the training and of the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from ..training.folder.provenance import read_starts
from .runs import Run, Runs

_OF_TRAINING = {
    "began": "began",
    "host": "machine",
    "system": "system",
    "device": "device",
    "processes": "processes",
    "commit": "commit",
    "data": "training images, digest",
    "command": "command",
}


@final
@dataclass(frozen=True)
class Origin:
    """A process that trained or measured.

    Attributes:
        title: what it did.
        rows: name and value of what is known of it.
    """

    title: str
    rows: tuple[tuple[str, str], ...]


def origins(runs: Runs) -> list[Origin]:
    """Return each process that trained the main run, and what its pictures were measured with."""
    return [*(_training(runs.main, start) for start in read_starts(runs.main.folder)), *_measurement(runs.main)]


def _training(run: Run, start: Mapping[str, Any]) -> Origin:
    step = start.get("start_step")
    title = f"{run.name}: continued at step {step}" if step else f"{run.name}: trained"
    rows = [(name, str(start[key])) for key, name in _OF_TRAINING.items() if start.get(key) is not None]
    if start.get("commit") is None:
        rows.append(("commit", "not known: not started in a git repository"))
    versions = start.get("versions")
    if isinstance(versions, dict):
        rows.append(("versions", _listed(versions)))
    return Origin(title, tuple(rows))


def _measurement(run: Run) -> list[Origin]:
    if not run.results:
        return []
    images, environment = run.results["images"], run.results.get("environment")
    decoded = {"fresh": "in a fresh process", "same": "in the process that encoded"}.get(
        run.results.get("decoded_in", "")
    )
    rows = [("pictures", str(len(images)))]
    rows += [("model, fingerprint", str(run.results["fingerprint"]))] if run.results.get("fingerprint") else []
    rows += [("decoded", decoded)] if decoded else []
    rows += [("versions and machine", _listed(environment))] if isinstance(environment, dict) and environment else []
    return [Origin(f"{run.name}: measured", tuple(rows))]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
