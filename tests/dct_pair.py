"""A pair that codes well without training: a block transform and a uniform quantiser in a factorised prior."""

from __future__ import annotations

import math

import torch
from torch import nn

import distillkit

SIDE = 8


class DctPair(distillkit.CodecPair):
    """Discrete cosine transforms of 8x8 blocks; the teacher does more work for a finer quantiser."""

    def build_teacher(self):
        return dct_codec(step=12, num_idle=2)

    def build_student(self):
        return dct_codec(step=24, num_idle=0)


def dct_codec(step, num_idle):
    """Return a codec that quantises coefficients in steps of so many grey levels, after idle 1x1 convolutions."""
    from compressai.models import FactorizedPrior

    codec = FactorizedPrior(1, 3 * SIDE**2)
    basis = nn.Conv2d(3, 3 * SIDE**2, SIDE, stride=SIDE)
    inverse = nn.ConvTranspose2d(3 * SIDE**2, 3, SIDE, stride=SIDE)
    idle = [nn.Conv2d(3, 3, 1) for _ in range(num_idle)]
    for layer in (basis, inverse, *idle):
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in idle:
            layer.weight.copy_(torch.eye(3)[..., None, None])
        waves = torch.zeros(3 * SIDE**2, 3, SIDE, SIDE)
        for row in range(SIDE):
            for column in range(SIDE):
                wave = cosine(row)[:, None] * cosine(column)
                for colour in range(3):
                    waves[colour * SIDE**2 + row * SIDE + column, colour] = wave
        basis.weight.copy_(waves * 255 / step)
        inverse.weight.copy_(waves * step / 255)
    codec.g_a, codec.g_s = nn.Sequential(*idle, basis), nn.Sequential(inverse, *idle)
    return codec


def cosine(frequency):
    positions = torch.arange(SIDE)
    scale = math.sqrt((1 if frequency == 0 else 2) / SIDE)
    return scale * torch.cos(math.pi * (positions + 0.5) * frequency / SIDE)


@distillkit.hookimpl
def register_pairs(register):
    register("pair", DctPair)
