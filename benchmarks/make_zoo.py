"""Make the models that ship: round trained models to half precision, measure them again, write the manifest.

    python benchmarks/make_zoo.py lite-student=runs/lowres-student --test images/test

Each model is written to NAME.safetensors in the zoo's folder, loaded from there, and measured on the test pictures by
real files, one of many rates at five qualities; the manifest gives the results and the recipes, the first run's first.
Models that are in the zoo already stay there. `--rest zoo:NAME` leaves out of a model's file what is the same in
another one that ships, as all of a light decoder but its synthesis is.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

import distillkit
from distillkit.data.listing import list_images
from distillkit.model import zoo
from distillkit.model.complexity import kmac_per_pixel, num_parameters
from distillkit.model.conditioned import FIXED_POINTS
from distillkit.model.file import save_model
from distillkit.model.lmbda import LmbdaRange
from distillkit.model.zoo import MANIFEST

ZOO = Path(distillkit.__file__).parent / "model" / "zoo"  # where the models that ship lie


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="NAME=RUN, a run folder")
    parser.add_argument("--test", type=Path, required=True, help="folder of test pictures")
    parser.add_argument("--rest", help="zoo:NAME of a model whose parts are left out")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument(
        "--data",
        default="388 clean photographs, CID22 (CC BY-SA 4.0), Unsplash and Pexels",
        help="said of the training data",
    )
    arguments = parser.parse_args()
    pictures = list_images(arguments.test)
    target = arguments.out / MANIFEST
    manifest = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    for item in arguments.models:
        name, _, run = item.partition("=")
        model = distillkit.load_model(run)
        path = arguments.out / f"{name}.safetensors"
        about = (model.pair, model.options, model.part, model.lmbda)
        save_model(path, model.codec, *about, objective=model.objective, half=True, rest=arguments.rest)
        shipped = distillkit.load_model(path)
        manifest[name] = {
            "file": path.name,
            "fingerprint": shipped.fingerprint,
            "pair": shipped.pair,
            "options": shipped.options,
            "part": shipped.part,
            "lmbda": asdict(shipped.lmbda) if isinstance(shipped.lmbda, LmbdaRange) else shipped.lmbda,
            "num_parameters": num_parameters(shipped.codec.module),
            "kmac_per_pixel": round(kmac_per_pixel(shipped.codec), 1),
            "runs": _runs(Path(run)),
            "data": arguments.data,
            "measured": {"pictures": f"{len(pictures)} in {arguments.test.name}", **_measured(shipped, pictures)},
            "torch": torch.__version__,
        }
        print(name, path.stat().st_size, manifest[name]["measured"])
    target.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _measured(model: distillkit.TrainedModel, pictures: Sequence[Path]) -> dict[str, object]:
    codec = distillkit.ImageCodec(model.codec, model.fingerprint)

    def point(quality: float | None, lmbda: float) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            averages = distillkit.evaluate(codec, pictures, Path(folder), lmbda, quality=quality).averages
        return {key: round(averages[key], 4) for key in ("rate_bpp", "psnr_db", "ms_ssim", "rd_cost")}

    if not isinstance(model.lmbda, LmbdaRange):
        return point(None, model.lmbda)
    lmbdas = {quality: model.lmbda.at(quality) for quality in FIXED_POINTS}
    return {"points": [{"quality": q, "lmbda": round(lmbda, 6), **point(q, lmbda)} for q, lmbda in lmbdas.items()]}


def _runs(run: Path) -> list[dict[str, object]]:
    """Return what the runs were that led to a model, each from the weights of the one before."""
    recipe = distillkit.Recipe.load(run / "recipe.toml")
    before = []
    if isinstance(recipe.initial_weights, Path):
        start = recipe.initial_weights
        in_zoo = start.parent.name == ZOO.name and start.stem in zoo.manifest()
        before = zoo.manifest()[start.stem]["runs"] if in_zoo else _runs(start.parent)
    settings, bare = recipe.optimizer, lambda name: name.removeprefix("core.")
    about = {
        "num_steps": recipe.num_steps,
        "losses": sorted(recipe.losses),
        "schedule": recipe.schedule.name if recipe.losses else None,
        "batch": f"{recipe.data.batch_size} crops of {recipe.data.crop} pixels",
        "optimizer": f"{bare(settings.name)} {settings.learning_rate:g}, {bare(settings.rate_schedule.name)}",
        "seed": recipe.seed,
    }
    if recipe.initial_weights == "teacher":
        about["initial_weights"] = "teacher"
    return [*before, about]


if __name__ == "__main__":
    main()
