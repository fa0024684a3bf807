"""Plot the RD cost by length of training, with and without FEDS.

python benchmarks/plot_lengths.py benchmarks/lowres-lengths.json docs/results-lengths.png

The record is that of the family `lowres-lengths.toml`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from distillkit.family.record import read_record


def main(record: Path, plot: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    jobs = [job for job in read_record(record).jobs if job.variant != "teacher"]
    for kind, label in (("control", "alone"), ("feds", "with FEDS")):
        points = sorted((job.num_steps, job.averages["rd_cost"]) for job in jobs if job.variant.startswith(kind))
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xscale="log", xlabel="steps", ylabel="RD cost J on Kodak, lambda .013")
    axes.set_xticks([500, 1000, 2000], ["500", "1000", "2000"], minor=False)
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(plot, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
