"""Times distillkit's coding against CompressAI's own `compress` and `decompress`, same weights, same run.

    python benchmarks/coding_speed.py kodak/ --threads 2
    python benchmarks/coding_speed.py kodak/ --threads 2 --model runs/student   # a trained model, and what bf16 costs

Both sides start from the pixels of a padded picture in memory and end with bytes, and back. Prints, for each codec and
precision, the medians over the pictures of the ratios theirs / ours, where our time goes, and in how many pictures the
reconstruction in fp32 is theirs to the pixel. Without `--model` the weights are random: transforms and networks take as
long as with trained ones, but the entropy coder has little to do, so that its share is not real. With a model also mean
bpp, PSNR and rate-distortion cost of each precision on the same pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--codec", action="append", choices=["checkerboard", "mean-scale", "serial"])
    parser.add_argument("--model", type=Path, help="a trained model instead")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only this many pictures")
    parser.add_argument("--crop", type=int, help="only the upper left square, with sides of this many pixels")
    parser.add_argument("--repeat", type=int, default=3, help="the fastest of N runs counts (serial, theirs: 1)")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    from distillkit import load_model
    from distillkit.data.images import read_image
    from distillkit.data.listing import list_images

    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    pictures = [read_image(path)[: arguments.crop, : arguments.crop] for path in list_images(arguments.pictures)]
    pictures = pictures[: arguments.limit]
    results = {}
    for name in ["model"] if arguments.model else arguments.codec or ["checkerboard", "mean-scale", "serial"]:
        results[name] = measure(name, _adapter(name, arguments.model), pictures, arguments.repeat)
        _show(name, results[name], load_model(arguments.model).lmbda if arguments.model else None)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


def measure(name: str, adapter: Any, pictures: list[np.ndarray], repeat: int) -> dict[str, Any]:
    """Return for each precision lists over the pictures: ratios, seconds and their parts, bpp, PSNR, differences."""
    from distillkit import ImageCodec
    from distillkit.evaluation.quality import psnr_db
    from distillkit.model.adapters import fingerprint

    digits = fingerprint(adapter.module)
    codecs = {precision: ImageCodec(adapter, digits, precision=precision) for precision in ("fp32", "bf16")}
    keys = ("encode_ratio", "decode_ratio", "encode_s", "decode_s", "encode_parts", "decode_parts", "bpp", "psnr_db",
            "differ", "largest_difference")  # fmt: skip
    results: dict[str, Any] = {precision: {key: [] for key in keys} for precision in codecs}
    results["theirs"] = {key: [] for key in ("encode_s", "decode_s", "bpp")}
    for number, picture in enumerate(pictures):
        batch = _batch(picture, adapter.stride)
        their_repeats = 1 if name == "serial" else repeat
        their_encode, coded = _fastest(lambda: _compress(adapter, batch), their_repeats)  # noqa: B023
        their_decode, x_hat = _fastest(lambda: _decompress(adapter, coded), their_repeats)  # noqa: B023
        height, width, _ = picture.shape
        theirs = x_hat[0, :, :height, :width].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        own = results["theirs"]
        own["encode_s"].append(their_encode)
        own["decode_s"].append(their_decode)
        own["bpp"].append(8 * sum(len(strings[0]) for strings in coded["strings"]) / (height * width))
        for precision, codec in codecs.items():
            codec.decode(codec.encode(picture))
            row = results[precision]
            encode, data = _fastest(lambda: codec.encode(picture), repeat)  # noqa: B023
            row["encode_parts"].append(dict(codec.stopwatch.seconds))
            decode, ours = _fastest(lambda: codec.decode(data), repeat)  # noqa: B023
            row["decode_parts"].append(dict(codec.stopwatch.seconds))
            row["encode_s"].append(encode)
            row["decode_s"].append(decode)
            row["encode_ratio"].append(their_encode / encode)
            row["decode_ratio"].append(their_decode / decode)
            row["bpp"].append(8 * len(data) / (height * width))
            row["psnr_db"].append(psnr_db(picture, ours))
            row["differ"].append(float((ours != theirs).mean()))
            row["largest_difference"].append(int(abs(ours.astype(int) - theirs).max()))
        print(f"{name}: {number + 1} of {len(pictures)}", file=sys.stderr)
    return results


def _show(name: str, results: dict[str, Any], lmbda: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("precision", "encode", "decode", "encode s", "decode s", title=f"{name}: theirs / ours, medians")
    theirs = results["theirs"]
    table.add_row("CompressAI", "", "", f"{median(theirs['encode_s']):.3f}", f"{median(theirs['decode_s']):.3f}")
    for precision in ("fp32", "bf16"):
        row = results[precision]
        ratios = (f"{median(row[key]):.2f}" for key in ("encode_ratio", "decode_ratio"))
        table.add_row(precision, *ratios, f"{median(row['encode_s']):.3f}", f"{median(row['decode_s']):.3f}")
    Console().print(table)
    for precision in ("fp32", "bf16"):
        row = results[precision]
        for direction in ("encode", "decode"):
            parts = row[f"{direction}_parts"]
            names = sorted({part for one in parts for part in one})
            split = {part: fmean(one.get(part, 0) for one in parts) for part in names}
            print(f"{precision} {direction}: " + ", ".join(f"{part} {1e3 * s:.1f} ms" for part, s in split.items()))
    row = results["fp32"]
    same = sum(differ == 0 for differ in row["differ"])
    print(f"fp32: {same} of {len(row['differ'])} reconstructions are CompressAI's to the pixel; of the others at most "
          f"{max(row['differ']):.2%} of the samples differ, by at most {max(row['largest_difference'])}")  # fmt: skip
    overhead = fmean(row["bpp"]) - fmean(theirs["bpp"])
    print(f"file against CompressAI's bare strings: {overhead:+.4f} bpp")
    if lmbda is not None:
        for precision in ("fp32", "bf16"):
            row = results[precision]
            cost = lmbda * fmean(255**2 / 10 ** (psnr / 10) for psnr in row["psnr_db"]) + fmean(row["bpp"])
            print(f"{precision}: {fmean(row['bpp']):.4f} bpp, {fmean(row['psnr_db']):.3f} dB, RD cost {cost:.4f}")


def _adapter(name: str, model: Path | None) -> Any:
    import torch
    from compressai.models import Cheng2020Anchor, MeanScaleHyperprior

    import distillkit
    from distillkit.model.adapters import as_codec

    if model is not None:
        return distillkit.load_model(model).codec
    torch.manual_seed(0)
    if name == "checkerboard":
        pair = distillkit.load_plugins().get("pair", "models.cheng2020", "benchmark")
        module = pair(pair.Config(size="lite")).build_student()
    else:
        module = Cheng2020Anchor(128) if name == "serial" else MeanScaleHyperprior(64, 96)
    adapter = as_codec(module.eval())
    adapter.update()
    return adapter


def _batch(picture: np.ndarray, stride: int) -> Any:
    import torch

    height, width, _ = picture.shape
    padded = np.pad(picture, ((0, -height % stride), (0, -width % stride), (0, 0)), mode="edge")
    return torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))[None]).float() / 255


def _compress(adapter: Any, batch: Any) -> Any:
    import torch

    with torch.no_grad():
        return adapter.module.compress(batch)


def _decompress(adapter: Any, coded: Any) -> Any:
    import torch

    with torch.no_grad():
        return adapter.module.decompress(coded["strings"], coded["shape"])["x_hat"]


def _fastest(call: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    times = []
    for _ in range(repeat):
        start = perf_counter()
        result = call()
        times.append(perf_counter() - start)
    return min(times), result


if __name__ == "__main__":
    main()
