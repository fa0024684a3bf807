"""Compares one model of many rates with one model for each rate, trained in the same way, and tests its rate control.

    python benchmarks/rates.py MODEL --train PHOTOS --pictures KODAK --out runs/rates --steps 4000 --crop 256

MODEL is a trained `models.lowres` student of one rate, from which all start. The model of many rates and each of those
of one rate train for the same steps, with the same seed and crops. Then all compress the pictures at four lambdas, and
the model of many rates compresses them to rates and qualities that are asked for. Runs that are finished are not
trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import distillkit
from distillkit.codec.rate_control import Wanted, encode_as_wanted, psnr_db

LOW, HIGH = 0.0018, 0.0483
QUALITIES = (0.0, 1 / 3, 2 / 3, 1.0)
TARGETS = {"bpp": (0.25, 0.5, 1.0), "psnr": (30.0, 33.0, 36.0)}


def recipe(
    model: distillkit.TrainedModel, file: str, train: Path, steps: int, crop: int, lmbda: Any
) -> distillkit.Recipe:
    """Return the recipe of a model of one rate, or, for a range of lambdas, of many."""
    gains = {"gain_units": 6} if isinstance(lmbda, dict) else {}
    return distillkit.Recipe.create(
        pair={"name": model.pair, **model.options, **gains},
        lmbda=lmbda,
        num_steps=steps,
        checkpoint_every=200,
        initial_weights=file,
        data={"train": str(train), "crop": crop, "batch_size": 8},
        optimizer={
            "name": "muon",
            "learning_rate": 2e-3,
            "rate_schedule": "cosine",
            "warmup_steps": min(100, steps // 10),
        },
    )


def codec_of(file: Path) -> distillkit.ImageCodec:
    """Return the codec of a trained model's file."""
    model = distillkit.load_model(file)
    return distillkit.ImageCodec(model.codec, model.fingerprint)


Points = dict[str, distillkit.RDPoint]


def coded(codec: distillkit.ImageCodec, pictures: dict[str, np.ndarray], quality: float | None) -> Points:
    """Return what each picture comes to: rate of its file and PSNR of what is decoded from it."""
    points = {}
    for name, picture in pictures.items():
        data = codec.encode(picture, quality)
        points[name] = distillkit.RDPoint(8 * len(data) / picture[..., 0].size, psnr_db(picture, codec.decode(data)))
    return points


def means(points: Points) -> str:
    """Return the mean rate and quality of pictures."""
    rate = np.mean([point.rate_bpp for point in points.values()])
    return f"{rate:.4f} bpp, {np.mean([point.psnr_db for point in points.values()]):.3f} dB"


def curve(name: str, rows: list[Points]) -> distillkit.RDCurve:
    """Return the curve of what pictures come to at several lambdas."""
    mean = [
        distillkit.RDPoint(
            float(np.mean([point.rate_bpp for point in row.values()])),
            float(np.mean([point.psnr_db for point in row.values()])),
        )
        for row in rows
    ]
    return distillkit.RDCurve(name, tuple(mean), {picture: tuple(row[picture] for row in rows) for picture in rows[0]})


def control(codec: distillkit.ImageCodec, pictures: dict[str, np.ndarray], wanted: Wanted) -> dict[str, Any]:
    """Return how near pictures come to what is wanted: relative, in per cent, of those within the model's range."""
    off, tries, at_end = [], [], 0
    for picture in pictures.values():
        found = encode_as_wanted(codec, picture, wanted)
        tries.append(found.tries)
        if found.quality in (0.0, 1.0) and not wanted.is_met_by(found.value):
            at_end += 1
        else:
            off.append(100 * abs(found.value / wanted.value - 1))
    about = {"worst_percent": max(off, default=None), "mean_percent": float(np.mean(off)) if off else None}
    return {"wanted": str(wanted), **about, "reached": len(off), "out_of_range": at_end, "tries": np.mean(tries)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the trained codec of one rate that all start from: a model file")
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of held-out pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of rates.json")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--crop", type=int, default=128, help="side of the training crops, in pixels")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = distillkit.load_model(args.model)
    lmbdas = [LOW * (HIGH / LOW) ** quality for quality in QUALITIES]
    wanted = {"many": {"low": LOW, "high": HIGH}} | {f"{lmbda:.4f}": lmbda for lmbda in lmbdas}
    files = {}
    for name, lmbda in wanted.items():
        wish = recipe(start, args.model, args.train, args.steps, args.crop, lmbda)
        files[name] = distillkit.train(wish, args.out / name)
    codecs = {name: codec_of(file) for name, file in files.items()}
    pictures = {path.stem: distillkit.read_image(path) for path in sorted(args.pictures.glob("*.png"))}
    singles = [coded(codecs[f"{lmbda:.4f}"], pictures, None) for lmbda in lmbdas]
    many = [coded(codecs["many"], pictures, quality) for quality in QUALITIES]
    curves = {"one for each rate": curve("one for each rate", singles), "one of many": curve("one of many", many)}
    for lmbda, quality, single, own in zip(lmbdas, QUALITIES, singles, many, strict=True):
        print(f"lmbda {lmbda:.4f}: {means(single)}; of many, quality {quality:.3f}: {means(own)}", flush=True)
    result = distillkit.bd_rate(curves["one for each rate"], curves["one of many"])
    print(f"BD-rate of the one of many: {result.rate_percent:+.2f} %, interval {result.interval}", flush=True)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    print(f"bytes of the one {sizes['many']}, of the others together {sum(sizes.values()) - sizes['many']}", flush=True)
    controlled = []
    for measure, values in TARGETS.items():
        for value in values:
            row = control(codecs["many"], pictures, Wanted(measure, value))
            controlled.append(row)
            print(row, flush=True)
    record = {
        "model": start.fingerprint,
        "steps": args.steps,
        "crop": args.crop,
        "lmbdas": lmbdas,
        "points": {name: [[p.rate_bpp, p.psnr_db] for p in each.points] for name, each in curves.items()},
        "bd_rate_percent": result.rate_percent,
        "interval": result.interval,
        "file_bytes": sizes,
        "control": controlled,
    }
    (args.out / "rates.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
