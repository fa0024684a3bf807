"""How long `check_pair` takes: for each small codec of the tests, and for some of CompressAI's codecs at full size.

Run `python benchmarks/check_pair_time.py`; it prints seconds of one core's time (`time.process_time`), one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch

import distillkit
import distillkit.testing

FULL_SIZE = ("bmshj2018-factorized", "mbt2018-mean", "cheng2020-anchor-checkerboard")


def main() -> None:
    """Print a line for each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="codecs of full size alone")
    full = parser.parse_args().full
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.habits import HABITS, HabitPair

    zoo = distillkit.load_plugins().components["pair"]["models.compressai"]
    codecs = {name: {"architecture": name, "quality": 4} for name in FULL_SIZE}
    full_size = {name: (zoo, {"teacher": codec, "student": codec}) for name, codec in codecs.items()}
    pairs = full_size if full else {name: (HabitPair, {"habit": name}) for name in HABITS}
    for name, (pair, options) in pairs.items():
        start = time.process_time()
        distillkit.testing.check_pair(pair, **options)
        print(f"{name:32} {time.process_time() - start:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
