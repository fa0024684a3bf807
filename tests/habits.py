"""Small codecs, each with a habit of the field's third-party codecs, written for these tests."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn import functional as F

import distillkit
from tests.own_code import Compiled, Older, Sized

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.ans import BufferedRansEncoder, RansDecoder, RansEncoder
    from compressai.entropy_models import EntropyBottleneck
    from compressai.models import MeanScaleHyperprior
    from compressai.models.utils import conv, deconv


class Residual(MeanScaleHyperprior):
    """A hyper-prior with one more network: what rounding lost is predicted; GELU in the hyper-synthesis."""

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        self.lrp = nn.Conv2d(2 * m, m, 3, padding=1)
        self.h_s[1] = nn.GELU()

    def parts(self, z_hat):
        return self.h_s(z_hat).chunk(2, 1)

    def fix(self, y_hat, means):
        return y_hat + 100 * torch.tanh(self.lrp(torch.cat([y_hat, means], 1)))

    def forward(self, x):
        y = self.g_a(x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        scales, means = self.parts(z_hat)
        y_hat, y_likelihoods = self.gaussian_conditional(y, scales, means=means)
        return {"x_hat": self.g_s(self.fix(y_hat, means)), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}

    def decompress(self, strings, shape):
        z_hat = self.entropy_bottleneck.decompress(strings[1], shape)
        scales, means = self.parts(z_hat)
        indexes = self.gaussian_conditional.build_indexes(scales)
        y_hat = self.gaussian_conditional.decompress(strings[0], indexes, means=means)
        return {"x_hat": self.g_s(self.fix(y_hat, means)).clamp_(0, 1)}


class Slices(MeanScaleHyperprior):
    """Groups of channels in a loop around CompressAI's coder, one string for all; likelihoods of longer names."""

    def __init__(self, n=8, m=16, num_slices=4):
        super().__init__(n, m)
        width = m // num_slices
        self.num_slices = num_slices
        self.cc = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * m + width * i, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 2 * width, 1))
            for i in range(num_slices)
        )
        self.lrp = nn.ModuleList(nn.Conv2d(2 * m + width * (i + 1), width, 1) for i in range(num_slices))

    def params(self, i, hyper, decoded):
        return self.cc[i](torch.cat([hyper, *decoded], 1)).chunk(2, 1)

    def fixed(self, i, hyper, decoded, y_hat):
        return y_hat + 0.5 * torch.tanh(self.lrp[i](torch.cat([hyper, *decoded, y_hat], 1)))

    def forward(self, x):
        y = self.g_a(x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        hyper, decoded, likelihoods = self.h_s(z_hat), [], []
        for i, part in enumerate(y.chunk(self.num_slices, 1)):
            scales, means = self.params(i, hyper, decoded)
            y_hat, likelihood = self.gaussian_conditional(part, scales, means=means)
            decoded.append(self.fixed(i, hyper, decoded, y_hat))
            likelihoods.append(likelihood)
        likelihoods = {"y_likelihoods": torch.cat(likelihoods, 1), "z_likelihoods": z_likelihoods}
        return {"x_hat": self.g_s(torch.cat(decoded, 1)), "likelihoods": likelihoods}

    def tables(self):
        model = self.gaussian_conditional
        lengths = model.cdf_length.reshape(-1).int().tolist()
        return model.quantized_cdf.tolist(), lengths, model.offset.reshape(-1).int().tolist()

    def compress(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        hyper = self.h_s(self.entropy_bottleneck.decompress(z_strings, z.shape[-2:]))
        decoded, symbols, indexes = [], [], []
        for i, part in enumerate(y.chunk(self.num_slices, 1)):
            scales, means = self.params(i, hyper, decoded)
            rounded = self.gaussian_conditional.quantize(part, "symbols", means)
            symbols.extend(rounded.reshape(-1).tolist())
            indexes.extend(self.gaussian_conditional.build_indexes(scales).reshape(-1).tolist())
            decoded.append(self.fixed(i, hyper, decoded, rounded + means))
        encoder = BufferedRansEncoder()
        encoder.encode_with_indexes(symbols, indexes, *self.tables())
        return {"strings": [[encoder.flush()], z_strings], "shape": z.shape[-2:]}

    def decompress(self, strings, shape):
        hyper = self.h_s(self.entropy_bottleneck.decompress(strings[1], shape))
        tables, decoder, decoded = self.tables(), RansDecoder(), []
        decoder.set_stream(strings[0][0])
        for i in range(self.num_slices):
            scales, means = self.params(i, hyper, decoded)
            y_hat = torch.zeros(means.shape)  # float32, where the encoder has none
            symbols = decoder.decode_stream(
                self.gaussian_conditional.build_indexes(scales).reshape(-1).tolist(), *tables
            )
            y_hat[:] = self.gaussian_conditional.dequantize(torch.Tensor(symbols).reshape(means.shape), means)
            decoded.append(self.fixed(i, hyper, decoded, y_hat))
        return {"x_hat": self.g_s(torch.cat(decoded, 1)).clamp_(0, 1)}


class Held(MeanScaleHyperprior):
    """Coders kept as attributes, of the codec and of an object of its own; a stream of symbols for each position."""

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        self.encoder = RansEncoder()
        self.helper = Helper()

    def compress(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        z_hat = self.entropy_bottleneck.decompress(z_strings, z.shape[-2:])
        scales, means = self.h_s(z_hat).chunk(2, 1)
        symbols = self.gaussian_conditional.quantize(y, "symbols", means)
        indexes = self.gaussian_conditional.build_indexes(scales)
        lists = [values[0].flatten(1).t().reshape(-1).tolist() for values in (symbols, indexes)]
        string = self.encoder.encode_with_indexes(*lists, *Slices.tables(self))
        return {"strings": [[string], z_strings], "shape": z.shape[-2:]}

    def decompress(self, strings, shape):
        z_hat = self.entropy_bottleneck.decompress(strings[1], shape)
        scales, means = self.h_s(z_hat).chunk(2, 1)
        indexes, tables = self.gaussian_conditional.build_indexes(scales), Slices.tables(self)
        self.helper.decoder.set_stream(strings[0][0])
        symbols = []
        for position in indexes[0].flatten(1).t():  # in more calls than the encoder's one
            symbols += self.helper.decoder.decode_stream(position.tolist(), *tables)
        symbols = torch.tensor(symbols).reshape(*indexes.shape[2:], -1).permute(2, 0, 1)[None]
        return {"x_hat": self.g_s(symbols + means).clamp_(0, 1)}


class Helper:
    """Has a decoder."""

    def __init__(self):
        self.decoder = RansDecoder()


class Window(nn.Module):
    """Attention with a mask made on the fly in float32, as that of a shifted window is."""

    def __init__(self, n):
        super().__init__()
        self.qkv = nn.Conv2d(n, 3 * n, 1)

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, 2)
        attention = q @ k.transpose(1, 2) + torch.zeros(1, q.shape[1], k.shape[1])
        return x + (attention.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)


class Masked(MeanScaleHyperprior):
    """Window attention in the analysis transform."""

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        self.g_a = nn.Sequential(*self.g_a[:6], Window(n), self.g_a[6])


class Stages(nn.Module):
    """A transform whose blocks lie in a list of stages."""

    def __init__(self, *stages):
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return x


class Wrapped(MeanScaleHyperprior):
    """Transforms that wrap their blocks, one of them twice over."""

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        analysis, synthesis = list(self.g_a), list(self.g_s)
        self.g_a = Stages(nn.Sequential(*analysis[:2]), nn.Sequential(*analysis[2:4]), nn.Sequential(*analysis[4:]))
        self.g_a = nn.Sequential(self.g_a)
        self.g_s = Stages(nn.Sequential(*synthesis[:2]), nn.Sequential(*synthesis[2:4]), nn.Sequential(*synthesis[4:]))


class Coarse(MeanScaleHyperprior):
    """Attention in windows of 8 latents: pictures of multiples of 128 pixels alone, which it does not say."""

    def forward(self, x):
        assert all(side % 128 == 0 for side in x.shape[2:]), "window does not fit"
        return super().forward(x)

    def compress(self, x):
        assert all(side % 128 == 0 for side in x.shape[2:]), "window does not fit"
        return super().compress(x)


class Named(nn.Module):
    """Tables in buffers of other names, and in a plain attribute that `update` fills."""

    def __init__(self, n=8, m=16):
        super().__init__()
        self.g_a = nn.Sequential(nn.Conv2d(3, n, 8, 8), nn.GELU(), nn.Conv2d(n, m, 2, 2))
        self.g_s = nn.Sequential(nn.ConvTranspose2d(m, n, 2, 2), nn.GELU(), nn.ConvTranspose2d(n, 3, 8, 8))
        self.prior = EntropyBottleneck(m)
        self.steps = nn.Parameter(torch.zeros(m))
        self.register_buffer("table", torch.zeros(0))
        self.sizes = None

    def forward(self, x):
        y_hat, likelihoods = self.prior(self.g_a(x))
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"latent": likelihoods}}

    def update(self):
        self.prior.update(force=True)
        self.table = self.steps.detach().exp()
        self.sizes = self.steps.detach().exp().round()

    def compress(self, x):
        y = self.g_a(x) / (self.table * self.sizes)[:, None, None]
        return {"strings": [self.prior.compress(y)], "shape": y.shape[-2:]}

    def decompress(self, strings, shape):
        y_hat = self.prior.decompress(strings[0], shape)
        return {"x_hat": self.g_s(y_hat * (self.table * self.sizes)[:, None, None]).clamp_(0, 1)}


class Scaled(nn.Module):
    """Hands a view of a parameter to a module inside."""

    def __init__(self, m):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4, m, 1, 1))
        self.layer = Times(m)

    def forward(self, x):
        return self.layer(x, self.gain[:1])


class Times(nn.Module):
    """A convolution times a given factor."""

    def __init__(self, m):
        super().__init__()
        self.conv = nn.Conv2d(m, m, 1)

    def forward(self, x, factor):
        return F.leaky_relu(self.conv(x)) * factor


class Viewed(MeanScaleHyperprior):
    """A view of a parameter passed on in the analysis transform."""

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        self.g_a.append(Scaled(m))


class Grey(MeanScaleHyperprior):
    """Codes one channel of 8 bits."""

    samples = distillkit.Samples(1, 8)

    def __init__(self, n=8, m=16):
        super().__init__(n, m)
        channels = self.samples.channels
        self.g_a[0], self.g_s[-1] = conv(channels, n), deconv(n, channels)


class Bands(Grey):
    """Codes four channels of 12 bits, as a satellite's camera has them."""

    samples = distillkit.Samples(4, 12)


HABITS = {
    "residual": Residual,
    "slices": Slices,
    "held": Held,
    "masked": Masked,
    "wrapped": Wrapped,
    "coarse": Coarse,
    "named": Named,
    "viewed": Viewed,
    "grey": Grey,
    "bands": Bands,
    "older": Older,
    "compiled": Compiled,
    "sized": Sized,
}


class HabitPair(distillkit.CodecPair):
    """A codec of one habit teaches another of the same."""

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            habit: a name in `HABITS`.
        """

        habit: str = "residual"

    def build_teacher(self):
        return self.codec(12)

    def build_student(self):
        return self.codec(8)

    def codec(self, n):
        codec = HABITS[self.config.habit](n, 16)
        stride = 128 if self.config.habit == "coarse" else None
        return distillkit.CompressAIAdapter(codec, stride, getattr(codec, "samples", distillkit.Samples()))


@distillkit.hookimpl
def register_pairs(register):
    register("pair", HabitPair)
