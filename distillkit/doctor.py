"""What is wrong with this installation or machine, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import torch

from .hooks.loader import load_plugins
from .model.precision import bf16_is_fast, bf16_time

DISTRIBUTION = "distillkit-lic"
_LIBRARIES = ("torch", "compressai", "timm", "constriction", "numpy", "pillow", "pydantic", "pluggy")
_GIB = 1 << 30
#: Free space that a run may need: two checkpoints of the largest shipped student with its optimiser, and as much again.
_DISK_GIB = 5


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: what was looked at.
        state: `ok`; `note`: works, but could be better or should be known; `problem`: must be fixed.
        found: what was found.
        advice: what to do; empty where nothing needs doing.
    """

    topic: str
    state: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""


def diagnose(folder: Path = Path()) -> list[Finding]:
    """Look at everything; `folder` is where runs would be written."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _distribution,
        _plugins,
        _devices,
        _bf16,
        _threads,
        _channels_last,
    )
    return [finding for check in checks for finding in check()] + [_disk(folder)]


def _versions() -> Iterator[Finding]:
    found, missing = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        again = f"pip install --force-reinstall {DISTRIBUTION}"
        yield Finding("versions", "problem", f"missing: {', '.join(missing)}", f"Install distillkit again: `{again}`.")
    yield Finding("versions", "ok", ", ".join(found))


def _distribution() -> Iterator[Finding]:
    """Other projects are called `distillkit` too; of two, the later installed overwrites the other's files."""
    owners = set(importlib.metadata.packages_distributions().get("distillkit", []))
    here = Path(__file__).parent
    if foreign := sorted(owners - {DISTRIBUTION}):
        yield Finding(
            "distribution",
            "problem",
            f"the package `distillkit` belongs to {', '.join(foreign)} too; the files in {here} may be mixed",
            f"`pip uninstall {' '.join(foreign)} {DISTRIBUTION}`, then `pip install {DISTRIBUTION}`.",
        )
        return
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        advice = f"`pip install {DISTRIBUTION}`, or `pip install --editable .` in its source folder."
        yield Finding("distribution", "problem", f"{here} is not installed, so its plugins are not found", advice)
        return
    yield Finding("distribution", "ok", f"{DISTRIBUTION} {version} in {here}")


def _plugins() -> Iterator[Finding]:
    loaded = load_plugins()
    for name, reason in loaded.left_out.items():
        yield Finding("plugins", "problem", reason, f"Until then, recipes and models that name {name} cannot be used.")
    number = sum(map(len, loaded.components.values()))
    yield Finding("plugins", "ok", f"{', '.join(p.name for p in loaded.plugins)}: {number} components")


def _devices() -> Iterator[Finding]:
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            yield Finding("device", "ok", f"cuda:{index} {about.name}, {about.total_memory / _GIB:.0f} GiB")
        return
    if torch.backends.mps.is_available():
        yield Finding("device", "ok", "Apple GPU (mps)")
        return
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    advice = "`tiny` takes minutes and `lite` hours; `paper` needs a GPU."
    if built:
        advice += " This torch is built for a GPU but sees none: check the driver with `nvidia-smi`."
    yield Finding("device", "note", "CPU only", advice)


def _bf16() -> Iterator[Finding]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = f"{device.type}: a convolution in bfloat16 takes {bf16_time(device):.2g} times as long as in float32"
    if bf16_is_fast(device):
        yield Finding("bf16", "ok", f"{found}; precision `auto` uses it")
    else:
        yield Finding("bf16", "note", found, 'Keep `precision = "auto"` (or `"fp32"`) in recipes.')


def _threads() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found = f"{threads} threads on {cores} cores, load {load:.1f}"
    if threads > cores:
        yield Finding("threads", "problem", found, f"Set OMP_NUM_THREADS={cores}: waiting threads are far slower.")
    elif threads > 1 and load > 0.5 and load + threads > cores + 0.5:
        advice = "Something else is busy: with OMP_NUM_THREADS=1 in both, each may be 10 times faster than now."
        yield Finding("threads", "note", found, advice)
    else:
        yield Finding("threads", "ok", found)


def _channels_last() -> Iterator[Finding]:
    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return
    yield Finding(
        "channels-last",
        "note",
        f"torch {torch.__version__} with oneDNN trains wrongly on channels-last batches on a CPU (oneDNN issue 6035: "
        "the heap is corrupted)",
        "distillkit's trainer makes every batch contiguous; in your own loop call `.contiguous()` on it.",
    )


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / _GIB
    found = f"{free:.0f} GiB free in {folder.resolve()}"
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "Runs are written to the working folder: go to another one, or name one with --out."
        return Finding("disk", "problem", f"{folder.resolve()} cannot be written: {error.strerror}", advice)
    if free < _DISK_GIB:
        advice = f"A run at `paper` size may need {_DISK_GIB} GiB: make room, or write runs elsewhere with --out."
        return Finding("disk", "note", found, advice)
    return Finding("disk", "ok", found)
