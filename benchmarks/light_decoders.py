"""How much of a codec's synthesis its files need: light decoders of a half, a quarter and a tenth of its arithmetic.

    python benchmarks/light_decoders.py MODEL --train PHOTOS --pictures KODAK --out runs/light --steps 1500

The model compresses the pictures once. Every light decoder decodes these very files; each is trained twice with the
same steps, seed and crops: on MSE alone (the control), and with the teacher's reconstruction and synthesis features as
losses beside it. Run it on an idle machine with OMP_NUM_THREADS=1; seconds are of this process's own CPU time, the
smallest of three for each picture. Runs that are finished are not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import distillkit

SHARES = {"a half": 1 / 2, "a quarter": 1 / 4, "a tenth": 1 / 10}
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
    """Return the widest light synthesis with so many blocks that computes no more than that."""
    best = {"width": 4, "blocks": blocks}
    for width in range(4, 512, 4):
        size = {"width": width, "blocks": blocks}
        config = pair.Config.model_validate({"teacher": model, "synthesis": size})
        if kmac_per_pixel(pair(config).build_student()) > kmac:
            return best
        best = size
    return best


def decode_all(model: distillkit.TrainedModel, files: list[bytes], pictures: list[np.ndarray]) -> dict[str, float]:
    """Return the mean PSNR of the decoded files in dB, and the mean CPU milliseconds of decoding one."""
    codec = distillkit.ImageCodec(model.codec, model.fingerprint)
    psnrs, milliseconds = [], []
    for data, picture in zip(files, pictures, strict=True):
        times = []
        for _ in range(3):
            began = time.process_time()
            decoded = codec.decode(data)
            times.append(time.process_time() - began)
        mse = np.square(decoded.astype(np.float64) - picture).mean()
        psnrs.append(10 * np.log10(255**2 / mse))
        milliseconds.append(1000 * min(times))
    return {"psnr_db": float(np.mean(psnrs)), "decode_cpu_ms": float(np.mean(milliseconds))}


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
    teacher = distillkit.load_model(args.model)
    pictures = [distillkit.read_image(path) for path in sorted(args.pictures.glob("*.png"))]
    files = [distillkit.ImageCodec(teacher.codec, teacher.fingerprint).encode(picture) for picture in pictures]
    num_bits = [8 * len(data) / picture[..., 0].size for data, picture in zip(files, pictures, strict=True)]
    pair = distillkit.load_plugins().get("pair", "models.light", "benchmark")
    own = kmac_per_pixel(teacher.codec)
    rows = [{"decoder": "the model's own", "synthesis_kmac": own, **decode_all(teacher, files, pictures)}]
    print(f"{len(files)} pictures, {np.mean(num_bits):.3f} bpp", rows[0], flush=True)
    for name, share in SHARES.items():
        size = size_for(pair, args.model, own * share, args.blocks)
        for kind, losses in (("control", {}), ("distilled", LOSSES)):
            recipe = distillkit.Recipe.create(
                pair={"name": "models.light", "teacher": args.model, "synthesis": size},
                lmbda=teacher.lmbda,
                num_steps=args.steps,
                losses=losses,
                schedule={"name": "core.constant", "balance": 0.5},
                data={"train": str(args.train), "crop": 128, "batch_size": 8, "num_crops": args.crops},
                optimizer={
                    "name": "muon",
                    "learning_rate": 3e-3,
                    "rate_schedule": "cosine",
                    "warmup_steps": min(100, args.steps // 10),
                },
            )
            began = time.process_time()
            file = distillkit.train(recipe, args.out / f"{name.split()[-1]}-{kind}")
            seconds = time.process_time() - began
            light = distillkit.load_model(file)
            row = {"decoder": name, "kind": kind, **size, "synthesis_kmac": kmac_per_pixel(light.codec)}
            row |= decode_all(light, files, pictures) | {"train_cpu_s": seconds}
            row["lost_db"] = rows[0]["psnr_db"] - row["psnr_db"]
            rows.append(row)
            print(row, flush=True)
    record = {"model": teacher.fingerprint, "bpp": float(np.mean(num_bits)), "steps": args.steps, "rows": rows}
    (args.out / "light_decoders.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
