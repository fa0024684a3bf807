"""Time coding with a low-resolution codec against a Cheng2020-style one of as many multiply-accumulates.

    python benchmarks/lowres_speed.py picture.png

Both have random weights: the time of the transforms and of the entropy networks does not depend on them, that of the
coder does a little. Runs alternate, and CPU seconds count, so a busy machine changes both equally; one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from distillkit_models.cheng2020_net import Cheng2020
from distillkit_models.cheng2020_presets import Cheng2020Size
from distillkit_models.lowres_net import LowRes
from distillkit_models.lowres_presets import PRESETS

import distillkit
from distillkit.data.images import read_image
from distillkit.model.adapters import as_codec
from distillkit.model.complexity import kmac_per_pixel, num_parameters

CHENG = Cheng2020Size(
    width=16, latent=192, blocks=0, swin_depth=0, hyper_width=48, entropy_width=56, context_kernel=3
)  # the same latent and entropy model, and the width that makes up for the rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    picture = read_image(arguments.picture)
    codecs = {}
    for name, network in (("lowres lite student", LowRes(PRESETS["lite"][1])), ("cheng2020", Cheng2020(CHENG))):
        adapter = as_codec(network.eval())
        adapter.update()
        codecs[name] = adapter, distillkit.ImageCodec(adapter, "0" * 32)
    times = {(name, way): [] for name in codecs for way in ("encode", "decode")}
    for _ in range(arguments.repeats + 1):  # the first is for warming up
        for name, (_, codec) in codecs.items():
            start = time.process_time()
            data = codec.encode(picture)
            middle = time.process_time()
            codec.decode(data)
            times[name, "encode"].append(middle - start)
            times[name, "decode"].append(time.process_time() - middle)
    for name, (adapter, _) in codecs.items():
        encode, decode = (1e3 * median(times[name, way][1:]) for way in ("encode", "decode"))
        size = f"{num_parameters(adapter.module) / 1e6:.2f} M, {kmac_per_pixel(adapter):.1f} kMAC/pixel"
        print(f"{name}: {size}; encode {encode:.0f} ms, decode {decode:.0f} ms of one core")


if __name__ == "__main__":
    main()
