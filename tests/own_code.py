"""Small codecs with copies of older releases, coders compiled from C++, and tensors kept for a picture's size."""

from __future__ import annotations

import warnings
import zlib

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.entropy_models import EntropyBottleneck
    from compressai.models import MeanScaleHyperprior


class OlderBottleneck(EntropyBottleneck):
    """An older release's, in a package of the same name: likelihoods come without the ends of their intervals."""

    def _likelihood(self, inputs, stop_gradient=False):
        with_ends = super()._likelihood(inputs, stop_gradient)
        return with_ends if stop_gradient else with_ends[0]  # `update` of this release takes the ends

    def forward(self, x, training=None):
        values = x.transpose(0, 1)
        shape = values.shape
        values = values.reshape(len(values), 1, -1)
        adds_noise = self.training if training is None else training
        outputs = self.quantize(values, "noise" if adds_noise else "dequantize", self._get_medians())
        likelihood = self.likelihood_lower_bound(self._likelihood(outputs))
        return tuple(each.reshape(shape).transpose(0, 1) for each in (outputs, likelihood))


class RoundingBottleneck(OlderBottleneck):
    """One that was changed: it rounds with a straight-through gradient, in training too."""

    def forward(self, x, training=None):
        values, likelihood = super().forward(x, training)
        medians = self._get_medians().reshape(1, -1, 1, 1)
        return medians + (x - medians) + ((x - medians).round() - (x - medians)).detach(), likelihood


for _bottleneck in (OlderBottleneck, RoundingBottleneck):
    _bottleneck.forward.__module__ = "compressai.entropy_models.entropy_models"
    _bottleneck.forward.__qualname__ = "EntropyBottleneck.forward"


class Older(MeanScaleHyperprior):
    """A vendored copy of an older release."""

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        self.entropy_bottleneck = OlderBottleneck(n)


class RansEncoder:
    """Another coder under a name of CompressAI's. It cannot be copied, as an object of C++ cannot."""

    def __init__(self):
        self._symbols = []

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle 'RansEncoder' object")

    def encode_with_indexes(self, symbols):
        self._symbols.append(symbols)

    def get_encoded_stream(self):
        data = zlib.compress(torch.cat(self._symbols).numpy().tobytes())
        self._symbols.clear()
        return data


class Coder:
    """Holds the coder, as a plain object, and in a list."""

    def __init__(self):
        self.encoders = [RansEncoder()]


class Compiled(nn.Module):
    """A codec that keeps a coder of C++."""

    def __init__(self, n=8, m=16):
        super().__init__()
        self.g_a = nn.Sequential(nn.Conv2d(3, n, 8, 8), nn.GELU(), nn.Conv2d(n, m, 2, 2))
        self.g_s = nn.Sequential(nn.ConvTranspose2d(m, n, 2, 2), nn.GELU(), nn.ConvTranspose2d(n, 3, 8, 8))
        self.spread = nn.Parameter(torch.zeros(m))
        self.coder = None

    def forward(self, x):
        y = self.g_a(x)
        y_hat = y + (y.round() - y).detach()
        spread = self.spread.exp()[:, None, None]
        bits = ((y_hat.abs() / spread + spread.log() + 1) / 0.7).clamp_min(0)
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": torch.exp2(-bits)}}

    def update(self, force=False):
        self.coder = Coder()

    def compress(self, x):
        y = self.g_a(x)
        (encoder,) = self.coder.encoders
        encoder.encode_with_indexes(y.round().to(torch.int16).reshape(-1))
        return {"strings": [[encoder.get_encoded_stream()]], "shape": y.shape[-2:]}

    def decompress(self, strings, shape):
        symbols = torch.frombuffer(bytearray(zlib.decompress(strings[0][0])), dtype=torch.int16)
        return {"x_hat": self.g_s(symbols.reshape(1, -1, *shape).float()).clamp_(0, 1)}


class Sized(MeanScaleHyperprior):
    """Keeps a mask for the size of the last picture, one for each size, and one that it registers as a buffer."""

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        self.size, self.mask, self.masks = None, None, {}
        self.register_buffer("last", torch.ones(1, 1, 1, 1), persistent=False)
        self.after = nn.Conv2d(2 * m, 2 * m, 1)

    def masked(self, params):
        height, width = params.shape[2:]
        if self.size != (height, width):
            self.size = height, width
            self.mask = torch.ones(1, 1, height, width)
            self.mask[:, :, ::2, 1::2] = 0.5
            self.last = self.mask * 0.5
        key = f"{height}x{width}"
        if key not in self.masks:
            self.masks[key] = self.mask + 1
        return self.after(params * self.mask * self.masks[key] + self.last)

    def scales_and_means(self, z_hat):
        return self.masked(self.h_s(z_hat)).chunk(2, 1)

    def forward(self, x):
        y = self.g_a(x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        scales, means = self.scales_and_means(z_hat)
        y_hat, y_likelihoods = self.gaussian_conditional(y, scales, means=means)
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}

    def compress(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        scales, means = self.scales_and_means(self.entropy_bottleneck.decompress(z_strings, z.shape[-2:]))
        indexes = self.gaussian_conditional.build_indexes(scales)
        return {"strings": [self.gaussian_conditional.compress(y, indexes, means), z_strings], "shape": z.shape[-2:]}

    def decompress(self, strings, shape):
        scales, means = self.scales_and_means(self.entropy_bottleneck.decompress(strings[1], shape))
        indexes = self.gaussian_conditional.build_indexes(scales)
        y_hat = self.gaussian_conditional.decompress(strings[0], indexes, means=means)
        return {"x_hat": self.g_s(y_hat).clamp_(0, 1)}
