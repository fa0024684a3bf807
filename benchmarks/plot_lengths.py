"""Plot the RD cost by length of training: alone, with FEDS, and sliced out of the teacher.

python benchmarks/plot_lengths.py benchmarks/lowres-lengths-lite.json docs/results-lengths.png

The record is that of the family `lowres-lengths-lite.toml`. Of several seeds: their mean.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt

from distillkit.family.record import read_record

LABELS = {"control": "alone", "feds": "with FEDS", "sliced": "sliced out of the teacher"}


def main(record: Path, plot: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    costs: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for job in read_record(record).jobs:
        if found := re.fullmatch(r"(\w+)-\d+", job.variant):
            costs[found[1]][job.num_steps].append(job.averages["rd_cost"])
    for kind, label in LABELS.items():
        points = [(steps, fmean(values)) for steps, values in sorted(costs[kind].items())]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
    steps = sorted(costs["control"])
    axes.set(xscale="log", xlabel="steps", ylabel="RD cost J on Kodak, lambda .013")
    axes.set_xticks(steps, map(str, steps), minor=False)
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(plot, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
