"""What the border of the hyper-prior's convolutions is worth: zeros, or the border repeated, in short training runs.

    python benchmarks/hyper_padding.py --train PHOTOS --test KODAK --out runs/padding

z of a crop of 128 pixels has 2x2 positions. The student of `models.lowres`, `lite`, is trained alone on such crops for
each border and learning rate. Prints the RD cost on the test pictures by real files, and, estimated, that on their
squares of 128 and of 256 pixels. A run takes about three minutes of one core; one that is done is not trained again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from distillkit_models.lowres import LowResPair
from torch import Tensor, nn

import distillkit
from distillkit.data.images import read_image
from distillkit.evaluation.evaluate import evaluate

CROP = 128


class ZerosPair(LowResPair):  # type: ignore[misc]  # final for others
    """The pair with zeros around the features of the hyper-prior."""

    def build_student(self) -> nn.Module | distillkit.CodecAdapter:
        student = super().build_student()
        for parent in list(student.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ReplicationPad2d):
                    setattr(parent, name, nn.ZeroPad2d(child.padding))
        return student


@distillkit.hookimpl
def register_pairs(register: Callable[[str, type[distillkit.CodecPair]], None]) -> None:
    register("zeros", ZerosPair)


def squares(picture: Tensor, side: int) -> Tensor:
    """Return the whole squares of a picture, shape (1, 3, H, W), as a batch."""
    cut = picture.unfold(2, side, side).unfold(3, side, side)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, side, side)


def cost(codec: distillkit.CodecAdapter, images: Tensor, lmbda: float) -> float:
    """Return the estimated RD cost of images in [0, 1]."""
    with torch.no_grad():
        output = codec.forward(images)
    bits = -sum(each.log2().sum().item() for each in output.likelihoods.values())
    error = (output.x_hat.clamp(0, 1) - images).square().mean().item()
    return bits * 3 / images.numel() + lmbda * 255**2 * error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--test", type=Path, required=True, help="folder of held-out pictures, PNG")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-3, 3e-3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    plugins = distillkit.load_plugins(padding=sys.modules[__name__])
    paths = sorted(options.test.glob("*.png"))
    print("| learning rate | border | RD cost | on squares of 128 | of 256 |\n|---:|---|---:|---:|---:|", flush=True)
    for rate in options.learning_rates:
        for border, pair in {"zeros": "padding.zeros", "repeated": "models.lowres"}.items():
            recipe = distillkit.Recipe.create(
                pair={"name": pair, "size": "lite"},
                num_steps=options.steps,
                lmbda=0.013,
                data={"train": options.train, "crop": CROP, "batch_size": 8},
                optimizer={"name": "muon", "learning_rate": rate, "rate_schedule": "cosine", "warmup_steps": 50},
            )
            folder = options.out / f"{border}-{rate:g}"
            model = distillkit.load_model(distillkit.train(recipe, folder, plugins=plugins), plugins=plugins)
            codec = distillkit.ImageCodec(model.codec, model.fingerprint)
            whole = evaluate(codec, paths, folder / "files", 0.013).averages["rd_cost"]
            pictures = [torch.from_numpy(read_image(path)).permute(2, 0, 1)[None] / 255 for path in paths]
            parts = [
                fmean(cost(model.codec, squares(picture, side), 0.013) for picture in pictures)
                for side in (CROP, 2 * CROP)
            ]
            print(f"| {rate:g} | {border} | {whole:.3f} | {parts[0]:.3f} | {parts[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
