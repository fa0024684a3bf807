"""Train teacher, control and student for MS-SSIM at `tiny` scale, and the control for MSE beside them; plot the curves.

    python benchmarks/ms_ssim.py --train photos/ --test kodak/ --out runs/ms-ssim --plot docs/ms-ssim.png

Each run takes minutes of one CPU core. A run that is done is left as it is; the table and the plot are made from what
lies in the folder.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import distillkit

LMBDAS = {"core.ms_ssim": [16.64, 4.58, 60.50], "core.mse": [0.013, 0.0035, 0.0483]}  # the same qualities of CompressAI
FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 16}}


def family(objective: str, images: Path, test: Path, teacher_steps: int, student_steps: int) -> distillkit.Family:
    """Return the runs for one objective: all three for MS-SSIM, the control alone for MSE."""
    recipe: dict[str, Any] = {
        "pair": {"name": "models.lowres", "size": "tiny"},
        "objective": {"name": objective},
        "data": {"train": images, "crop": 192, "batch_size": 4},
        "optimizer": {"name": "muon", "learning_rate": 3e-3, "rate_schedule": "cosine", "warmup_steps": 30},
        "precision": "fp32",
        "log_every": 50,
        "checkpoint_every": 500,
    }
    student = recipe | {"num_steps": student_steps, "schedule": {"name": "feds.staged", "finetune_learning_rate": 1.0}}
    variants: dict[str, Any] = {"control": {"losses": {}}}
    if objective == "core.ms_ssim":
        variants["student"] = {"losses": FEDS}
    return distillkit.Family.create(
        test=test,
        lmbdas=LMBDAS[objective],
        teacher=recipe | {"num_steps": teacher_steps},
        student=student,
        variants=variants,
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
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for objective, only in (("core.ms_ssim", ["*"]), ("core.mse", ["control-*"])):
        runs = family(objective, options.train, options.test, options.teacher_steps, options.student_steps)
        rows = distillkit.run_family(runs, options.out / objective.partition(".")[2], only=only)
        for row in rows:
            if row.results is None:
                continue
            averages = row.results["averages"]
            name = f"{row.job.variant}, for {objective.partition('.')[2].replace('_', '-').upper()}"
            ms_ssim_db = -10 * math.log10(1 - averages["ms_ssim"])
            curves.setdefault(name, []).append((averages["bpp"], ms_ssim_db, averages["psnr_db"]))
            figures = (
                f"{averages['bpp']:.3f} | {averages['ms_ssim']:.4f} | {ms_ssim_db:.2f} | {averages['psnr_db']:.2f}"
            )
            print(f"| {name} | {row.job.lmbda:g} | {figures} |")
    if options.plot:
        plot({name: sorted(points) for name, points in curves.items()}, options.plot)


def plot(curves: dict[str, list[tuple[float, float, float]]], file: Path) -> None:
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
