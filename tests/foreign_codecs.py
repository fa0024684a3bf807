"""Small codecs with the habits of the field's forks, and the adapters by which distillkit talks to them."""

from __future__ import annotations

import itertools
import warnings

import torch
from torch import nn

import distillkit

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional
    from compressai.models import FactorizedPrior, MeanScaleHyperprior


class Tokens(nn.Module):
    """A stage of a transformer codec: patches to tokens, (B, HW, C), and a network on them; returns sizes, too."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.merge = nn.Linear(4 * inputs, outputs)
        self.mlp = nn.Sequential(nn.LayerNorm(outputs), nn.Linear(outputs, outputs), nn.GELU())

    def forward(self, x, height, width):
        batch, _, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3).flatten(3).flatten(1, 2)
        x = self.merge(x)
        return x + self.mlp(x), height // 2, width // 2


class TokenCodec(nn.Module):
    """Stages in a list, `g_a` None, transforms that are methods, no hyper-prior: the layout of window-attention codecs.

    Likelihoods are called otherwise, there is no entropy bottleneck and no auxiliary loss, `forward` returns more than
    is asked for, `compress` wants a quality and returns a tuple, and its strings are nested.
    """

    def __init__(self, width):
        super().__init__()
        self.g_a = None
        self.layers = nn.ModuleList([Tokens(3, width), Tokens(width, width), Tokens(width, width), Tokens(width, 16)])
        self.synthesis = nn.ModuleList([nn.ConvTranspose2d(16, width, 4, 4), nn.ConvTranspose2d(width, 3, 4, 4)])
        self.scale = nn.Parameter(torch.zeros(16))
        self.prior = GaussianConditional(None)

    def analyse(self, x):
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            x, height, width = layer(x, height, width)
        return x.transpose(1, 2).unflatten(2, (height, width))

    def synthesise(self, y_hat):
        return self.synthesis[1](torch.relu(self.synthesis[0](y_hat)))

    def scales(self, y):
        return torch.exp(self.scale).view(1, -1, 1, 1).expand_as(y)

    def forward(self, x):
        y = self.analyse(x)
        y_hat, likelihood = self.prior(y, self.scales(y))
        return {"rec": self.synthesise(y_hat), "lkd": {"main": likelihood}, "mask": None, "attention": [y]}

    def refresh_tables(self):
        self.prior.update_scale_table(torch.logspace(-2, 4, 32, base=2).tolist(), force=True)

    def compress(self, x, quality, *, verbose=False):
        y = self.analyse(x)
        strings = self.prior.compress(y, self.prior.build_indexes(self.scales(y)))
        return ({"layers": [{"main": (strings,)}]}, tuple(y.shape[2:]))

    def decompress(self, streams, size, quality):
        (strings,) = streams["layers"][0]["main"]
        indexes = self.prior.build_indexes(self.scales(torch.empty(len(strings), 16, *size)))
        return self.synthesise(self.prior.decompress(strings, indexes))


class TokenAdapter(distillkit.CodecAdapter):
    """All that distillkit needs to know of it."""

    def __init__(self, module):
        self.module, self.stride = module, 16

    def forward(self, images):
        out = self.module(images)
        return distillkit.CodecOutput(out["rec"], {"y": out["lkd"]["main"]})

    def compress(self, images):
        strings, size = self.module.compress(images, quality=3)
        return distillkit.CompressedLatents([strings["layers"][0]["main"][0]], list(size))

    def decompress(self, latents):
        return self.module.decompress({"layers": [{"main": latents.strings}]}, latents.shape, quality=3)

    def update(self):
        self.module.refresh_tables()


class TokenPair(distillkit.CodecPair):
    """Taps by path, by method, and by a callable that takes the tokens out of what a stage returns."""

    def build_teacher(self):
        return TokenAdapter(TokenCodec(24))

    def build_student(self):
        return TokenAdapter(TokenCodec(12))

    def taps(self):
        stages = {f"analysis.1/{2 ** (i + 1)}": f"layers.{i}" for i in range(3)}
        read = {role: distillkit.Tap(path, read=lambda output: output[0]) for role, path in stages.items()}
        return {**read, "latent": "analyse", "synthesis.1/4": "synthesis.0", "reconstruction": "synthesise"}

    teacher_taps = student_taps = taps


class Nested(MeanScaleHyperprior):
    """Strings in dicts in lists, and padding to 128."""

    downsampling_factor = 128

    def compress(self, x):
        out = super().compress(x)
        y, z = out["strings"]
        return {"strings": {"body": [{"y": y}], "side": (z,)}, "shape": {"z": list(out["shape"])}}

    def decompress(self, strings, shape):
        return super().decompress([strings["body"][0]["y"], strings["side"][0]], tuple(shape["z"]))


class NestedPair(distillkit.CodecPair):
    def build_teacher(self):
        return Nested(16, 16)

    def build_student(self):
        return Nested(8, 16)


class Wide(FactorizedPrior):
    """Pads to 256, and returns single byte strings for one picture."""

    downsampling_factor = 256

    def compress(self, x):
        out = super().compress(x)
        return {"strings": [out["strings"][0][0]], "shape": out["shape"], "time": 0.1}

    def decompress(self, strings, shape):
        return super().decompress([[strings[0]]], shape)


class WidePair(distillkit.CodecPair):
    def build_teacher(self):
        return Wide(16, 16)

    def build_student(self):
        return Wide(8, 16)


class Sequence(nn.Module):
    """A codec whose transforms are sequences of token layers under CompressAI's names: nothing needs to be said."""

    class Merge(nn.Module):
        def __init__(self, inputs, outputs, grid):
            super().__init__()
            self.layer, self.grid = nn.Conv2d(inputs, outputs, 2, 2), grid

        def forward(self, x):
            x = x if x.ndim == 4 else x.transpose(1, 2).unflatten(2, self.grid["size"])
            x = self.layer(x)
            self.grid["size"] = tuple(x.shape[2:])
            return x.flatten(2).transpose(1, 2)

    class ToMap(nn.Module):
        def __init__(self, grid):
            super().__init__()
            self.grid = grid

        def forward(self, x):
            return x.transpose(1, 2).unflatten(2, self.grid["size"])

    def __init__(self, width, stages=4):
        super().__init__()
        grid, widths = {}, (3, *[width] * (stages - 1), 16)
        merges = [self.Merge(*pair, grid) for pair in itertools.pairwise(widths)]
        self.g_a = nn.Sequential(*merges, self.ToMap(grid))
        rest = 2 ** (stages - 2)
        self.g_s = nn.Sequential(nn.ConvTranspose2d(16, width, 4, 4), nn.ConvTranspose2d(width, 3, rest, rest))
        self.entropy_bottleneck = EntropyBottleneck(16)

    def forward(self, x):
        y_hat, likelihoods = self.entropy_bottleneck(self.g_a(x))
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": likelihoods}}

    def aux_loss(self):
        return self.entropy_bottleneck.loss()

    def update(self, force=False):
        self.entropy_bottleneck.update(force=force)

    def compress(self, x):
        y = self.g_a(x)
        return {"strings": [self.entropy_bottleneck.compress(y)], "shape": tuple(y.shape[2:])}

    def decompress(self, strings, shape):
        return {"x_hat": self.g_s(self.entropy_bottleneck.decompress(strings[0], shape))}


class SequencePair(distillkit.CodecPair):
    def build_teacher(self):
        return Sequence(24)

    def build_student(self):
        return Sequence(12)


@distillkit.hookimpl
def register_pairs(register):
    for name, pair in (("tokens", TokenPair), ("nested", NestedPair), ("wide", WidePair), ("sequence", SequencePair)):
        register(name, pair)
