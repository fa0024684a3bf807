"""Measures light decoders with a half, a quarter and a tenth of the arithmetic of a codec's synthesis.

    python benchmarks/light_decoders.py MODEL --train PHOTOS --pictures KODAK --out runs/light --steps 1500

The model compresses the pictures once, a model of many rates at four qualities. Every light decoder decodes these
files; each is trained twice with the same steps, seed and crops: on MSE alone (the control), and with the teacher's
reconstruction and synthesis features as losses beside it. The decoder of a quarter is compared with a whole codec of
equal decode time: the model with that synthesis, all of which is trained, so that it writes other files. Run it on an
idle machine with OMP_NUM_THREADS=1; times are of this process's own CPU time, the decoders taking turns on six
pictures. Runs that are finished are not trained again, and their training time is that of reading them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distillkit_models.light import LightSize
from distillkit_models.light_net import replace_transform
from pydantic import Field
from torch.utils.flop_counter import FlopCounterMode

import distillkit

SHARES = {"half": 1 / 2, "quarter": 1 / 4, "tenth": 1 / 10}
RUNS = (
    ("quarter", "control"),
    ("half", "control"),
    ("tenth", "control"),
    ("quarter", "whole"),
    ("quarter", "distilled"),
    ("half", "distilled"),
    ("tenth", "distilled"),
)
QUALITIES = (0.0, 1 / 3, 2 / 3, 1.0)
LOSSES = {"kd.output": {}, "feds.alignment": {"taps": ["synthesis.*"]}}


def kmac_per_pixel(codec: distillkit.CodecAdapter) -> float:
    """Return thousands of multiply-accumulates of the synthesis for each pixel of a picture."""
    module, stride = codec.module.eval(), codec.stride
    counts = []
    counter = FlopCounterMode(display=False)
    before = module.g_s.register_forward_pre_hook(lambda *_: counter.__enter__() and None)
    after = module.g_s.register_forward_hook(lambda *_: counter.__exit__(None, None, None))
    with torch.no_grad():
        codec.forward(torch.zeros(1, 3, 4 * stride, 4 * stride))
    counts.append(counter.get_total_flops() / 2 / (4 * stride) ** 2 / 1000)
    before.remove()
    after.remove()
    return counts[0]


def size_for(pair: type[distillkit.CodecPair], model: str, kmac: float, blocks: int) -> dict[str, int]:
    """Return the widest light synthesis with this number of blocks that computes no more than that."""
    best = {"width": 4, "blocks": blocks}
    for width in range(4, 512, 4):
        size = {"width": width, "blocks": blocks}
        config = pair.Config.model_validate({"teacher": model, "synthesis": size})
        if kmac_per_pixel(pair(config).build_student()) > kmac:
            return best
        best = size
    return best


class WholePair(distillkit.CodecPair):
    """A trained codec, and the same with a light synthesis, all of which is trained."""

    class Config(distillkit.ComponentConfig):
        """The model, or in its own file how that is built; and the size of the light synthesis."""

        model: str | None = None
        built: dict[str, Any] = Field(default_factory=dict)
        synthesis: LightSize

    def sources_of(self, part: str) -> list[str]:
        """Return none: a file of this pair describes how the model is built."""
        return []

    def options_of(self, part: str, module: torch.nn.Module) -> dict[str, Any]:
        """Return the options with that description in place of the model."""
        model = distillkit.load_model(self.config.model)
        built = {"pair": model.pair, "options": model.options}
        return {"built": built, "synthesis": self.config.synthesis.model_dump()}

    def build_teacher(self) -> distillkit.CodecAdapter:
        """Return the model."""
        if self.config.model is not None:
            return distillkit.load_model(self.config.model).codec
        built = self.config.built
        pair, config = distillkit.load_plugins().configure("pair", built["pair"], built["options"], "benchmark")
        return distillkit.as_codec(pair(config).build_student())

    def build_student(self) -> distillkit.CodecAdapter:
        """Return it with a light synthesis."""
        codec = self.build_teacher()
        replace_transform(codec, "g_s", self.config.synthesis)
        return codec


class Plugin:
    """Registers `bench.whole`."""

    @distillkit.hookimpl
    def register_pairs(self, register: Callable[..., None]) -> None:
        """Register it."""
        register("whole", WholePair)


def encode_all(
    model: distillkit.TrainedModel, pictures: list[np.ndarray], qualities: tuple[float | None, ...]
) -> list[list[bytes]]:
    """Return the files of each quality."""
    codec = distillkit.ImageCodec(model.codec, model.fingerprint)
    return [[codec.encode(picture, quality) for picture in pictures] for quality in qualities]


def decode_all(
    name: str, model: distillkit.TrainedModel, files: list[list[bytes]], pictures: list[np.ndarray]
) -> distillkit.RDCurve:
    """Return rate and PSNR of the decoded files as a curve."""
    codec = distillkit.ImageCodec(model.codec, model.fingerprint)
    rows = []
    for each in files:
        mses = [np.square(codec.decode(data).astype(float) - p).mean() for data, p in zip(each, pictures, strict=True)]
        bits = [8 * len(data) / p[..., 0].size for data, p in zip(each, pictures, strict=True)]
        rows.append([distillkit.RDPoint(b, 10 * np.log10(255**2 / mse)) for b, mse in zip(bits, mses, strict=True)])
    means = tuple(
        distillkit.RDPoint(
            float(np.mean([point.rate_bpp for point in row])), float(np.mean([point.psnr_db for point in row]))
        )
        for row in rows
    )
    pictured = {str(index): tuple(row[index] for row in rows) for index in range(len(pictures))}
    return distillkit.RDCurve(name, means, pictured)


def decode_times(coders: list[tuple[distillkit.TrainedModel, list[bytes]]]) -> list[float]:
    """Return the mean CPU milliseconds of decoding a file, the decoders taking turns: of each file the fastest of 5."""
    codecs = [distillkit.ImageCodec(model.codec, model.fingerprint) for model, _ in coders]
    best = np.full((len(coders), len(coders[0][1])), np.inf)
    for _ in range(5):
        for file in range(best.shape[1]):
            for index, (codec, (_, files)) in enumerate(zip(codecs, coders, strict=True)):
                began = time.process_time()
                codec.decode(files[file])
                best[index, file] = min(best[index, file], time.process_time() - began)
    return [1000 * float(each) for each in best.mean(axis=1)]


def bd_percent(anchor: distillkit.RDCurve, test: distillkit.RDCurve) -> float | str:
    """Return the BD-rate in per cent, or why there is none."""
    try:
        return distillkit.bd_rate(anchor, test).rate_percent
    except distillkit.DistillkitError as error:
        return str(error)


def recipe_of(args: argparse.Namespace, lmbda: object, size: dict[str, int], kind: str) -> distillkit.Recipe:
    """Return the recipe of a light decoder, or of the whole codec with its synthesis."""
    pair = {"name": "models.light", "teacher": args.model, "synthesis": size}
    if kind == "whole":
        pair = {"name": "bench.whole", "model": args.model, "synthesis": size}
    return distillkit.Recipe.create(
        pair=pair,
        lmbda=lmbda,
        num_steps=args.steps,
        losses=LOSSES if kind == "distilled" else {},
        schedule={"name": "core.constant", "balance": 0.5} if kind == "distilled" else {"name": "core.constant"},
        data={"train": str(args.train), "crop": 128, "batch_size": 8, "num_crops": args.crops},
        optimizer={
            "name": "muon",
            "learning_rate": 3e-3,
            "rate_schedule": "cosine",
            "warmup_steps": min(100, args.steps // 10),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the trained codec: a run folder, a model file or zoo:NAME")
    parser.add_argument("--train", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of held-out pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of light_decoders.json")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--crops", type=int, default=2048, help="different crops of 128 pixels")
    parser.add_argument("--blocks", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    plugins = distillkit.load_plugins(bench=Plugin())
    teacher = distillkit.load_model(args.model)
    qualities = QUALITIES if isinstance(teacher.codec, distillkit.ConditionedAdapter) else (None,)
    pictures = [distillkit.read_image(path) for path in sorted(args.pictures.glob("*.png"))]
    files = encode_all(teacher, pictures, qualities)
    pair = plugins.get("pair", "models.light", "benchmark")
    own = kmac_per_pixel(teacher.codec)
    first, middle = decode_all("own", teacher, files, pictures), len(files) // 2
    curves, rows = {}, [{"decoder": "the model's own", "synthesis_kmac": own}]
    coders = [(teacher, files[middle][:6])]
    rows[0]["points"] = [(point.rate_bpp, point.psnr_db) for point in first.points]
    print(rows[0], flush=True)
    for share, kind in RUNS:
        size = size_for(pair, args.model, own * SHARES[share], args.blocks)
        began = time.process_time()
        recipe = recipe_of(args, teacher.lmbda, size, kind)
        file = distillkit.train(recipe, args.out / f"{share}-{kind}", plugins=plugins)
        seconds = time.process_time() - began
        light = distillkit.load_model(file, plugins)
        own_files = encode_all(light, pictures, qualities) if kind == "whole" else files
        coders.append((light, own_files[middle][:6]))
        curves[share, kind] = curve = decode_all(f"{share} {kind}", light, own_files, pictures)
        row = {"decoder": share, "kind": kind, **size, "synthesis_kmac": kmac_per_pixel(light.codec)}
        row["train_cpu_s"] = seconds
        row["points"] = [(point.rate_bpp, point.psnr_db) for point in curve.points]
        row["lost_db"] = [a.psnr_db - b.psnr_db for a, b in zip(first.points, curve.points, strict=True)]
        if len(qualities) > 1:
            row["bd_rate_percent"] = bd_percent(first, curve)
            if kind != "whole" and ("quarter", "whole") in curves and share == "quarter":
                row["bd_rate_percent_of_whole"] = bd_percent(curves[share, "whole"], curve)
        if kind == "whole" and len(qualities) > 1:
            row["bd_rate_percent_of_control"] = bd_percent(curves[share, "control"], curve)
        rows.append(row)
        print(row, flush=True)
    for row, milliseconds in zip(rows, decode_times(coders), strict=True):
        row["decode_cpu_ms"] = milliseconds
        print(row["decoder"], row.get("kind", ""), f"{milliseconds:.1f} ms")
    record = {"model": teacher.fingerprint, "steps": args.steps, "rows": rows}
    (args.out / "light_decoders.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
