"""Parameters, multiply-accumulates and coding times of the paper-size Cheng2020 pair, by real bytes of one image.

python benchmarks/paper_pair.py --image kodim01.png [--threads 2] [--repeats 3] [--json]

Both codecs have random weights: parameters, operations and the time of the networks do not depend on them. The coder's
time does, a little, so both get the same latent statistics: y is scaled to a standard deviation of 0.3 and the scales'
bias set to it, about 1 bit a pixel at M = 320. Times are medians over whole runs, teacher and student by turns. The
context's parameters and operations include the half of its kernel that the checkerboard masks.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from distillkit_models.cheng2020_net import Cheng2020
from distillkit_models.cheng2020_presets import PRESETS, Cheng2020Size
from PIL import Image
from torch import Tensor, nn

from distillkit.evaluation.complexity import kmac_per_pixel, num_parameters
from distillkit.model.adapters import as_codec

LATENT_STD = 0.3
TRANSFORMS = ("g_a", "g_s")
TARGET_PARAMETER_CUT = 0.63


def parts(codec: Cheng2020) -> dict[str, nn.Module]:
    """Return the codec's networks by name; what is left over is the entropy bottleneck."""
    y_codec, z_codec = codec.latent_codec["y"], codec.latent_codec["hyper"]
    return {
        "g_a": codec.g_a,
        "g_s": codec.g_s,
        "h_a": z_codec.h_a,
        "h_s": z_codec.h_s,
        "context": y_codec.context_prediction,
        "entropy parameters": y_codec.entropy_parameters,
    }


def largest_width(teacher: Cheng2020Size, student: Cheng2020Size, parameter_cut: float) -> int:
    """Return the largest student width, a multiple of 8, with at least `parameter_cut` fewer parameters."""
    allowed = (1 - parameter_cut) * num_parameters(Cheng2020(teacher))
    width = 8
    while num_parameters(Cheng2020(replace(student, width=width + 8))) <= allowed:
        width += 8
    return width


def read_image(path: Path, multiple: int) -> tuple[Tensor, int]:
    """Return the image padded by its edges, shape (1, 3, H, W), range [0, 1], and its number of pixels unpadded."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1)[None].contiguous(), height * width


@torch.no_grad()
def set_latent_scale(codec: Cheng2020, image: Tensor) -> None:
    """Scale the last convolution of g_a and the predicted scales to `LATENT_STD` on `image`."""
    last = [module for module in codec.g_a if isinstance(module, nn.Conv2d)][-1]
    factor = LATENT_STD / codec.g_a(image).std()
    last.weight.mul_(factor)
    last.bias.mul_(factor)
    parts(codec)["entropy parameters"][-1].bias[: codec.size.latent] = LATENT_STD


class Stopwatch:
    """Adds up the seconds that each named network runs."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        for name, network in networks.items():
            network.register_forward_pre_hook(lambda *_, name=name: self._add(name, -perf_counter()))
            network.register_forward_hook(lambda *_, name=name: self._add(name, perf_counter()))

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] += seconds

    def run(self, function: Any, *args: Any) -> tuple[Any, dict[str, float]]:
        """Return what `function` returns and seconds: total, transforms, entropy networks and coder (the rest)."""
        self.seconds.clear()
        start = perf_counter()
        result = function(*args)
        total = perf_counter() - start
        transforms = sum(self.seconds[name] for name in TRANSFORMS)
        networks = sum(self.seconds.values())
        split = {"transforms": transforms, "entropy networks": networks - transforms, "coder": total - networks}
        return result, {"total": total, **split}


@torch.no_grad()
def measure(codecs: dict[str, Cheng2020], image: Tensor, num_pixels: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Return for each codec its bpp and the median seconds of encoding and decoding; one untimed run goes before."""
    watches = {name: Stopwatch(parts(codec)) for name, codec in codecs.items()}
    runs: dict[str, dict[str, list[dict[str, float]]]] = {n: {"encode": [], "decode": []} for n in codecs}
    results: dict[str, dict[str, Any]] = {name: {} for name in codecs}
    for repeat in range(repeats + 1):
        for name, codec in codecs.items():
            latents, encode = watches[name].run(codec.compress, image)
            _, decode = watches[name].run(codec.decompress, latents["strings"], latents["shape"])
            results[name]["rate_bpp"] = 8 * sum(len(s) for stream in latents["strings"] for s in stream) / num_pixels
            if repeat:
                runs[name]["encode"].append(encode)
                runs[name]["decode"].append(decode)
    for name, by_direction in runs.items():
        for direction, seconds in by_direction.items():
            results[name][f"{direction}_seconds"] = {k: median(run[k] for run in seconds) for k in seconds[0]}
    return results


def describe(codec: Cheng2020) -> dict[str, Any]:
    counts = {name: num_parameters(network) for name, network in parts(codec).items()}
    return {
        "size": asdict(codec.size),
        "num_parameters": {"total": num_parameters(codec), **counts},
        "kmac_per_pixel": kmac_per_pixel(as_codec(codec)),
    }


def show(report: dict[str, Any]) -> None:
    teacher, student = report["teacher"], report["student"]
    print(f"{report['image']}, {report['threads']} thread(s), torch {report['torch']}, float32, {report['weights']}")
    print(f"{'':32s}{'teacher':>12s}{'student':>12s}{'cut':>9s}")

    def row(name: str, t: float, s: float, form: str = ".3f") -> None:
        print(f"{name:32s}{t:12{form}}{s:12{form}}{1 - s / t:9.1%}")

    for name, count in teacher["num_parameters"].items():
        row(f"parameters, {name} [M]", count / 1e6, student["num_parameters"][name] / 1e6)
    row("kMAC/pixel (FlopCounterMode)", teacher["kmac_per_pixel"], student["kmac_per_pixel"], ".1f")
    for direction in ("encode", "decode"):
        for name, seconds in teacher[f"{direction}_seconds"].items():
            row(f"{direction}, {name} [s]", seconds, student[f"{direction}_seconds"][name])
    row("rate [bpp]", teacher["rate_bpp"], student["rate_bpp"])
    for name in ("teacher", "student"):
        for direction in ("encode", "decode"):
            seconds = report[name][f"{direction}_seconds"]
            shares = ", ".join(f"{k} {v / seconds['total']:.0%}" for k, v in seconds.items() if k != "total")
            print(f"{name} {direction}: {shares}")
    print(f"largest student width for {TARGET_PARAMETER_CUT:.0%} fewer parameters: {report['largest_width']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    sizes = dict(zip(("teacher", "student"), PRESETS["paper"], strict=True))
    codecs = {name: Cheng2020(size).eval() for name, size in sizes.items()}
    image, num_pixels = read_image(arguments.image, Cheng2020.downsampling_factor)
    report: dict[str, Any] = {name: describe(codec) for name, codec in codecs.items()}
    for codec in codecs.values():
        set_latent_scale(codec, image)
        codec.update()
    for name, measured in measure(codecs, image, num_pixels, arguments.repeats).items():
        report[name] |= measured
    report |= {
        "image": arguments.image.name,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "torch": torch.__version__,
        "weights": f"random weights, y scaled to a standard deviation of {LATENT_STD}",
        "largest_width": largest_width(sizes["teacher"], sizes["student"], TARGET_PARAMETER_CUT),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
