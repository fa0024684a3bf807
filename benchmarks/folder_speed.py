"""Times `distillkit compress FOLDER` and `decompress FOLDER` in one process and in one for each core.

    python benchmarks/folder_speed.py kodak/ --model zoo:lite-student

Whole commands, from the start of Python on, so the folder is given `--copies` times to make that small. One process is
the same command kept to one core; where a process may not be kept to a core this ends with an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--model", default="zoo:lite-student")
    parser.add_argument("--copies", type=int, default=4, help="of the folder, in subfolders")
    parser.add_argument("--repeat", type=int, default=2, help="the median of N runs; all cores and one take turns")
    arguments = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("folder_speed: expected a system that keeps a process to a core, as Linux does; run it there.")
    cores = sorted(os.sched_getaffinity(0))
    seconds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, coded, back = (Path(folder) / name for name in ("source", "coded", "back"))
        for copy in range(arguments.copies):
            shutil.copytree(arguments.pictures, source / str(copy))
        number = sum(path.is_file() for path in source.rglob("*"))
        for _ in range(arguments.repeat):
            for used in (cores[-1:], cores):
                for direction, start, end in (("compress", source, coded), ("decompress", coded, back)):
                    command = [sys.executable, "-W", "ignore", "-m", "distillkit", direction, str(start), str(end)]
                    os.sched_setaffinity(0, used)  # the command inherits it
                    began = perf_counter()
                    subprocess.run(
                        [*command, "--model", arguments.model, "--overwrite"], check=True, stdout=subprocess.DEVNULL
                    )
                    seconds.setdefault((direction, len(used)), []).append(perf_counter() - began)
        os.sched_setaffinity(0, cores)
    for direction in ("compress", "decompress"):
        one, all_cores = (median(seconds[direction, count]) for count in (1, len(cores)))
        print(
            f"{direction}: {number} files, one core {one:.1f} s ({number / one:.1f} a second), {len(cores)} cores "
            f"{all_cores:.1f} s ({number / all_cores:.1f} a second): {one / all_cores:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
