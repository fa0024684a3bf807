"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from ...model.device import device_name

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
        device: where learned codecs ran.
        load_average: processes that ran or waited in the minute before, or None where the system does not say.
    """

    processor: str
    num_cores: int
    system: str
    python: str
    torch: str
    threads: int
    device: str
    load_average: float | None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing else seemed to run."""
        return self.load_average is None or self.load_average <= _QUIET

    def __str__(self) -> str:
        place = "" if self.device == "cpu" else f"; learned codecs on {self.device}"
        return (
            f"{self.processor}, {self.num_cores} logical core{'s' * (self.num_cores != 1)}, {self.system}; torch "
            f"{self.torch}, Python {self.python}; {self.threads} thread{'s' * (self.threads != 1)}{place}"
        )


def this_machine(threads: int, device: torch.device) -> Machine:
    """Return what this process runs on; `threads` are used, and learned codecs run on `device`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    system = f"{platform.system()} {platform.release()}"
    versions = platform.python_version(), torch.__version__
    return Machine(_processor(), cores, system, *versions, threads, device_name(device), load)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
