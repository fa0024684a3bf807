"""What bfloat16 costs: BD-rate of coding with bfloat16 transforms against all of it in float32, same trained models.

    python benchmarks/precision_cost.py runs/student-*/model.safetensors --data kodak/

Each model, at least four of different lambdas, codes every picture to a real file and back in both precisions. Prints
rate, quality and RD cost of each, and the BD-rate, with its bootstrap interval over the pictures. Timing plays no part.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean

PRECISIONS = ("fp32", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="models of one codec, a lambda each")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    from distillkit import ImageCodec, load_model
    from distillkit.data.images import read_image
    from distillkit.data.listing import list_images
    from distillkit.evaluation.bd import bd_rate
    from distillkit.evaluation.curve import RDCurve, RDPoint
    from distillkit.evaluation.quality import psnr_db

    torch.set_num_threads(arguments.threads)
    pictures = {path.name: read_image(path) for path in list_images(arguments.data)}
    points: dict[str, list[RDPoint]] = {precision: [] for precision in PRECISIONS}
    per_image: dict[str, dict[str, list[RDPoint]]] = {precision: {} for precision in PRECISIONS}
    for source in arguments.models:
        model = load_model(source)
        for precision in PRECISIONS:
            codec = ImageCodec(model.codec, model.fingerprint, precision=precision)
            measured = []
            for name, picture in pictures.items():
                data = codec.encode(picture)
                rate = 8 * len(data) / (picture.shape[0] * picture.shape[1])
                measured.append(RDPoint(rate, psnr_db(picture, codec.decode(data)), lmbda=model.lmbda))
                per_image[precision].setdefault(name, []).append(measured[-1])
            rate, quality = (fmean(getattr(point, key) for point in measured) for key in ("rate_bpp", "psnr_db"))
            points[precision].append(RDPoint(rate, quality, lmbda=model.lmbda))
            cost = fmean(model.lmbda * 255**2 / 10 ** (p.psnr_db / 10) + p.rate_bpp for p in measured)
            print(f"lambda {model.lmbda:g}, {precision}: {rate:.4f} bpp, {quality:.3f} dB, RD cost {cost:.4f}")
            sys.stdout.flush()
    curves = [
        RDCurve(name, tuple(points[name]), {image: tuple(each) for image, each in per_image[name].items()})
        for name in PRECISIONS
    ]
    result = bd_rate(*curves)
    low, high = result.interval or (float("nan"), float("nan"))
    others = ", ".join(f"{method} {value:+.3f} %" for method, value in result.others.items())
    print(f"BD-rate of bf16 against fp32: {result.rate_percent:+.3f} % ({result.method}; {others})")
    print(f"95 % interval over {result.num_images} pictures {low:+.3f} to {high:+.3f} %, overlap {result.overlap:.0%}")


if __name__ == "__main__":
    main()
