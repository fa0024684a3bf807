"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

#: Load average, in processes, above which other programs are taken to disturb what is timed.
_QUIET = 0.5


@final
@dataclass(frozen=True)
class Machine:
    """The machine, and how it was used.

    Attributes:
        processor: its name.
        num_cores: logical ones that this process may use.
        system: kernel and version.
        python: version.
        torch: version.
        threads: that were used.
        load_average: processes that ran or waited in the minute before, or None where the system does not say.
    """

    processor: str
    num_cores: int
    system: str
    python: str
    torch: str
    threads: int
    load_average: float | None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing else seemed to run."""
        return self.load_average is None or self.load_average <= _QUIET

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.num_cores} logical core{'s' * (self.num_cores != 1)}, {self.system}; torch "
            f"{self.torch}, Python {self.python}; {self.threads} thread{'s' * (self.threads != 1)}"
        )


def this_machine(threads: int) -> Machine:
    """Return what this process runs on; `threads` are used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    system = f"{platform.system()} {platform.release()}"
    return Machine(_processor(), cores, system, platform.python_version(), torch.__version__, threads, load)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
