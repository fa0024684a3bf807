"""Train teacher, control and student for MS-SSIM at `tiny` scale, and plot the curves.

    python benchmarks/ms_ssim.py --train photos/ --test kodak/ --out runs/ms-ssim --plot docs/ms-ssim.png

Each run takes minutes of one CPU core. A run that is done is not changed; the table and the plot are made from the
folder.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import distillkit

LMBDAS = [16.64, 4.58, 60.50]  # of CompressAI's qualities 4, 2 and 6
FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 16}}


def family(images: Path, test: Path, teacher_steps: int, student_steps: int) -> distillkit.Family:
    """Return the runs."""
    recipe: dict[str, Any] = {
        "pair": {"name": "models.lowres", "size": "tiny"},
        "objective": {"name": "core.ms_ssim"},
        "data": {"train": images, "crop": 192, "batch_size": 4},
        "optimizer": {"name": "muon", "learning_rate": 3e-3, "rate_schedule": "cosine", "warmup_steps": 30},
        "precision": "fp32",
        "log_every": 50,
        "checkpoint_every": 500,
    }
    student = recipe | {"num_steps": student_steps, "schedule": {"name": "feds.staged", "finetune_learning_rate": 1.0}}
    return distillkit.Family.create(
        test=test,
        lmbdas=LMBDAS,
        teacher=recipe | {"num_steps": teacher_steps},
        student=student,
        variants={"control": {"losses": {}}, "student": {"losses": FEDS}},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--test", type=Path, required=True, help="folder of held-out pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--teacher-steps", type=int, default=400)
    parser.add_argument("--student-steps", type=int, default=300)
    parser.add_argument("--plot", type=Path, help="file of the plot; needs matplotlib")
    options = parser.parse_args()
    curves: dict[str, list[tuple[float, float]]] = {}
    runs = family(options.train, options.test, options.teacher_steps, options.student_steps)
    rows = [row for row in distillkit.run_family(runs, options.out) if row.results is not None]
    for row in sorted(rows, key=lambda row: (row.job.variant, row.job.lmbda)):
        averages = row.results["averages"]
        ms_ssim_db = -10 * math.log10(1 - averages["ms_ssim"])
        curves.setdefault(row.job.variant, []).append((averages["rate_bpp"], ms_ssim_db))
        figures = (
            f"{averages['rate_bpp']:.3f} | {ms_ssim_db:.2f} | {averages['psnr_db']:.2f} | {averages['rd_cost']:.3f}"
        )
        print(f"| {row.job.variant} | {row.job.lmbda:g} | {figures} |")
    if options.plot:
        plot({name: sorted(points) for name, points in curves.items()}, options.plot)


def plot(curves: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Draw MS-SSIM in dB over bits per pixel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", label=name)
    axes.set(xlabel="bits per pixel", ylabel="MS-SSIM in dB")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
