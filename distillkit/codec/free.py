"""How much memory is free, and whether a picture fits in it; no torch, for exports have this file, too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def free_ram() -> int | None:
    """Return how many bytes of memory are left for this process, or None where that is not known."""
    known: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        known.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):  # a container's own limit; "max" is none
        most = int(Path("/sys/fs/cgroup/memory.max").read_text())
        known.append(most - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    with suppress(OSError, ValueError, ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            known.append(limit - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0]))
    return max(min(known), 0) if known else None


def compare_with_free(height: int, width: int, needed: int, free: int | None) -> tuple[str | None, str]:
    """Return why a picture cannot be coded, or None, and a line on what it takes.

    Args:
        height: in pixels.
        width: in pixels.
        needed: bytes that coding takes.
        free: bytes, or None where that is not known.
    """
    takes = f"image of {width}x{height} pixels: coding it takes about {needed / 1e9:.1f} GB of memory"
    if free is None:
        return None, takes
    problem = f"{takes}, got {free / 1e9:.1f} GB that are free; cut it into parts, or free memory."
    return problem if needed > free else None, f"{takes}, {free / 1e9:.1f} GB are free"
