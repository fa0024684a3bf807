"""Make the models that ship: round runs of a family to half precision, measure them again, write the manifest.

    python benchmarks/make_zoo.py benchmarks/lite.toml --runs runs/lite \
        --models lite-teacher=teacher-0.013 lite-student=alignment-0.013-seed0

Each model is written to distillkit/zoo/NAME.safetensors, loaded from there, and measured on the family's pictures by
real files; the manifest says what came out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

import distillkit
from distillkit.data.listing import list_images
from distillkit.evaluation.complexity import kmac_per_pixel, num_parameters
from distillkit.family.plan import Family, plan
from distillkit.model.file import save_model
from distillkit.model.zoo import MANIFEST

ZOO = Path(distillkit.__file__).parent / "zoo"  # where the models that ship lie; elsewhere, they are only kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=Path)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the family's runs")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--models", nargs="+", required=True, help="NAME=JOB")
    parser.add_argument(
        "--data",
        default="364 clean photographs, CID22 (CC BY-SA 4.0), Unsplash and Pexels",
        help="said of the training data",
    )
    arguments = parser.parse_args()
    family = Family.load(arguments.family)
    jobs = {job.name: job for job in plan(family, arguments.runs)}
    pictures = list_images(family.test)
    manifest = {}
    for item in arguments.models:
        name, _, job_name = item.partition("=")
        model, recipe = distillkit.load_model(arguments.runs / job_name), jobs[job_name].recipe
        path = arguments.out / f"{name}.safetensors"
        save_model(
            path, model.codec, model.pair, model.options, model.part, model.lmbda, objective=model.objective, half=True
        )
        shipped = distillkit.load_model(path)
        with tempfile.TemporaryDirectory() as folder:
            codec = distillkit.ImageCodec(shipped.codec, shipped.fingerprint)
            averages = distillkit.evaluate(codec, pictures, Path(folder), shipped.lmbda).averages
        manifest[name] = {
            "file": path.name,
            "fingerprint": shipped.fingerprint,
            "pair": shipped.pair,
            "options": shipped.options,
            "part": shipped.part,
            "lmbda": shipped.lmbda,
            "num_parameters": num_parameters(shipped.codec.module),
            "kmac_per_pixel": round(kmac_per_pixel(shipped.codec), 1),
            "recipe": {
                "family": arguments.family.name,
                "job": job_name,
                "num_steps": recipe.num_steps,
                "initial_weights": _start(recipe.initial_weights),
                "losses": sorted(recipe.losses),
                "schedule": recipe.schedule.name if recipe.losses else None,
                "batch": f"{recipe.data.batch_size} crops of {recipe.data.crop} pixels",
                "seed": recipe.seed,
            },
            "data": arguments.data,
            "measured": {
                "pictures": f"{len(pictures)} in {family.test.name}",
                **{key: round(averages[key], 4) for key in ("rate_bpp", "psnr_db", "ms_ssim", "rd_cost")},
            },
            "torch": torch.__version__,
        }
        print(name, path.stat().st_size, manifest[name]["measured"])
    (arguments.out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _start(weights: str | Path) -> str:
    return weights.parent.name if isinstance(weights, Path) else weights


if __name__ == "__main__":
    main()
