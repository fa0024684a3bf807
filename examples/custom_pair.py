"""Distil your own codec without packaging anything: python examples/custom_pair.py TRAIN_FOLDER TEST_FOLDER."""

import sys
from pathlib import Path

from compressai.models import MeanScaleHyperprior
from torch import nn

import distillkit


class Codec(MeanScaleHyperprior):  # or any module with forward, compress and decompress
    def __init__(self, n):
        super().__init__(N=n, M=64)
        sizes = [(3, n), (n, n), (n, n), (n, 64)]
        self.g_a = nn.Sequential(*(nn.Sequential(nn.Conv2d(i, o, 4, 2, 1), nn.Softshrink(0.01)) for i, o in sizes))
        up = (nn.Sequential(nn.Softplus(), nn.ConvTranspose2d(o, i, 4, 2, 1)) for i, o in reversed(sizes))
        self.g_s = nn.Sequential(*up)


class MyPair(distillkit.CodecPair):
    def build_teacher(self):
        return Codec(48)

    def build_student(self):
        return Codec(16)


@distillkit.hookimpl
def register_pairs(register):
    register("pair", MyPair)  # its name in recipes is "mine.pair"


if __name__ == "__main__":
    plugins, images = distillkit.load_plugins(mine=sys.modules[__name__]), sorted(Path(sys.argv[2]).iterdir())
    common = {"pair": {"name": "mine.pair"}, "data": {"train": sys.argv[1], "crop": 128}, "num_steps": 600}
    common["optimizer"] = {"name": "soap", "learning_rate": 3e-3, "rate_schedule": "cosine", "warmup_steps": 50}
    feds = {"losses": {"feds.alignment": {}, "feds.channel_entropy": {}}, "schedule": {"name": "feds.staged"}}
    teacher, student = (distillkit.Recipe.create(**common, **more) for more in ({"trains": "teacher"}, feds))
    print(distillkit.distil_recipes(teacher, student, "runs/mine", images, plugins=plugins).to_json())
