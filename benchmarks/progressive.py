"""A student whose stages replace the teacher's one after the other, beside the same student trained by itself.

    python benchmarks/progressive.py --train PHOTOS --pictures KODAK --out runs/progressive

The teacher is trained first (`models.lowres`, `tiny`). Control and student have the same steps, seed and crops; no loss
terms but rate and distortion. Real files of the held-out pictures are measured. Finished runs are not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import distillkit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/progressive"))
    parser.add_argument("--teacher-steps", type=int, default=900)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.5, help="of the steps in which stages are replaced")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = {"train": arguments.train, "crop": arguments.crop, "batch_size": 8, "convert": True}
    muon = {"name": "muon", "rate_schedule": "cosine", "warmup_steps": 50, "learning_rate": 3e-3}
    common = {"pair": {"name": "models.lowres", "size": "tiny"}, "lmbda": 0.013, "data": data, "optimizer": muon}
    teacher = distillkit.Recipe.create(trains="teacher", num_steps=arguments.teacher_steps, **common)
    schedule = {"name": "kd.progressive", "stages": ["g_s", "g_a"], "share": arguments.share}
    student = distillkit.Recipe.create(num_steps=arguments.steps, schedule=schedule, **common)
    pictures = sorted(arguments.pictures.glob("*.png"))
    comparison = distillkit.distil_recipes(teacher, student, arguments.out, pictures)
    for model in comparison.models:
        means = model.evaluation.averages
        print(model.name, *(f"{key} {means[key]:.3f}" for key in ("rate_bpp", "psnr_db", "rd_cost")))


if __name__ == "__main__":
    main()
