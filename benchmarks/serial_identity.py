"""Is a serial context decoded along a wavefront identical to CompressAI's own raster scan, and in what precision?

    python benchmarks/serial_identity.py kodak/ --limit 3 --crop 192

Cheng2020-anchor, N = 128, random weights made lively. All sides get the same latents y, those of the analysis in
float32, so that only what the serial context and the synthesis do is compared: distillkit (fp32) by real files,
CompressAI in double precision (`model.double()`) and in its own float32 by real strings. CompressAI's strings are also
decoded with another number of threads. Prints in how many latents (as float32) and 8-bit samples each pair differs.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--limit", type=int, help="only so many pictures")
    parser.add_argument("--crop", type=int, help="only the upper left square of so many pixels, a multiple of 64")
    arguments = parser.parse_args()
    import torch

    from distillkit import ImageCodec
    from distillkit.data.images import read_image
    from distillkit.data.listing import list_images
    from distillkit.model.adapters import fingerprint

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    adapter = _lively()
    single, double = copy.deepcopy(adapter.module), copy.deepcopy(adapter.module).double()
    codec = ImageCodec(adapter, fingerprint(adapter.module), precision="fp32")
    latents = _keep_latents(codec)
    counts: dict[str, list[np.ndarray]] = {}
    for path in list_images(arguments.pictures)[: arguments.limit]:
        picture = read_image(path)[: arguments.crop, : arguments.crop]
        data = codec.encode(picture)
        y = latents["y"]
        ours = codec.decode(data), latents["y_hat"]
        theirs = _theirs(double, y)
        plain = _theirs(single, y)
        other = _theirs(single, y, decoding_threads=2)
        for name, first, second in (
            ("distillkit and CompressAI in double", ours, theirs),
            ("distillkit and CompressAI in float32", ours, plain),
            ("CompressAI in float32 and in double", plain, theirs),
            ("CompressAI in float32, decoded with 1 and 2 threads", plain, other),
        ):
            counts.setdefault(name, []).append(_compare(first, second))
        print(f"{path.name}: {float((ours[1] != 0).float().mean()):.0%} of the latents are not 0", flush=True)
    for name, rows in counts.items():
        latent, largest, samples, level, num_latents, num_samples = np.array(rows).T
        print(
            f"{name}: {latent.sum():.0f} of {num_latents.sum():.0f} latents differ, by {largest.max():.1e} at most; "
            f"{samples.sum():.0f} of {num_samples.sum():.0f} samples, by {level.max():.0f} at most"
        )


def _compare(first: tuple[np.ndarray, Any], second: tuple[np.ndarray, Any]) -> np.ndarray:
    pixels = abs(first[0].astype(int) - second[0])
    latents = (first[1].float() - second[1].float()).abs()
    return np.array(
        [int((latents > 0).sum()), float(latents.max()), (pixels > 0).sum(), pixels.max(), latents.numel(), pixels.size]
    )


def _keep_latents(codec: Any) -> dict[str, Any]:
    """Return a dictionary that will hold the last y, in float32, and the last y_hat that was synthesised from."""
    kept: dict[str, Any] = {}
    module = codec._coder.adapter.module
    module.g_a.register_forward_hook(lambda _, args, out: kept.__setitem__("y", out.float()))
    module.g_s.register_forward_pre_hook(lambda _, args: kept.__setitem__("y_hat", args[0]))
    return kept


def _theirs(module: Any, y: Any, decoding_threads: int = 1) -> tuple[np.ndarray, Any]:
    """Return picture and latents that CompressAI's own coding of `y` comes to."""
    import torch

    dtype = next(module.parameters()).dtype
    kept: dict[str, Any] = {}
    analysis = module.g_a.register_forward_hook(lambda *_: y.to(dtype))
    synthesis = module.g_s.register_forward_pre_hook(lambda _, args: kept.__setitem__("y_hat", args[0]))
    torch.set_default_dtype(dtype)  # the decoder collects latents in a tensor of this
    try:
        coded = module.compress(torch.zeros(1, 3, 16 * y.shape[2], 16 * y.shape[3], dtype=dtype))
        torch.set_num_threads(decoding_threads)
        x_hat = module.decompress(coded["strings"], coded["shape"])["x_hat"]
    finally:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        analysis.remove()
        synthesis.remove()
    return x_hat[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy(), kept["y_hat"]


def _lively() -> Any:
    """Return the codec, its weights such that latents are not all 0 and scales differ."""
    import torch
    from compressai.models import Cheng2020Anchor

    from distillkit.model.adapters import as_codec

    torch.manual_seed(0)
    module = Cheng2020Anchor(128).eval()
    for name, parameter in module.named_parameters():
        if name.endswith("weight") and parameter.ndim == 4:
            parameter.mul_(1.7 if name.startswith("g_a") else 1.4 if "g_s" not in name else 1)
    adapter = as_codec(module)
    adapter.update()
    return adapter


if __name__ == "__main__":
    main()
