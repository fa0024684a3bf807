"""Codes one large picture in tiles and prints the peak memory of this process.

    python benchmarks/large_picture.py --megapixels 12
    python benchmarks/large_picture.py --megapixels 50 --model runs/student

The picture is random blocks of 8x8 pixels; without `--model` the codec is the `lite` student with random weights.
"""

from __future__ import annotations

import argparse
import resource
import warnings
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import distillkit
    from distillkit.model.adapters import as_codec, fingerprint

    if arguments.model:
        adapter = distillkit.load_model(arguments.model).codec
    else:
        pair = distillkit.load_plugins().get("pair", "models.cheng2020", "benchmark")
        adapter = as_codec(pair(pair.Config(size="lite")).build_student().eval())
        adapter.update()
    codec = distillkit.ImageCodec(adapter, fingerprint(adapter.module))
    height = int((arguments.megapixels * 1e6 * 3 / 4) ** 0.5)
    width = height * 4 // 3
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = blocks.repeat(8, 0).repeat(8, 1)[:height, :width].copy()
    print(f"{width}x{height}; before coding {_peak_gb():.2f} GB")
    data = codec.encode(picture)
    print(f"encoded to {len(data)} bytes; peak {_peak_gb():.2f} GB")
    codec.decode(data)
    print(f"decoded; peak {_peak_gb():.2f} GB")


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kilobytes on Linux


if __name__ == "__main__":
    main()
