"""What a codec can get wrong, one small codec for each kind: `check_pair` shows it as one line with the fix."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import distillkit
import distillkit.testing
from tests.habits import MeanScaleHyperprior, Window

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.entropy_models import EntropyBottleneck


class Unnamed(nn.Module):
    """Transforms of other names, as functions of the codec: nothing tells where their stages are."""

    def __init__(self, n=4, m=8):
        super().__init__()
        self.down = nn.Parameter(torch.randn(m, 3, 16, 16) / 20)
        self.up = nn.Parameter(torch.randn(m, 3, 16, 16) / 20)
        self.entropy_bottleneck = EntropyBottleneck(m)

    def forward(self, x):
        y_hat, likelihoods = self.entropy_bottleneck(nn.functional.conv2d(x, self.down, stride=16))
        return {"x_hat": nn.functional.conv_transpose2d(y_hat, self.up, stride=16), "likelihoods": {"y": likelihoods}}

    def compress(self, x):
        y = nn.functional.conv2d(x, self.down, stride=16)
        return {"strings": [self.entropy_bottleneck.compress(y)], "shape": y.shape[-2:]}

    def decompress(self, strings, shape):
        y_hat = self.entropy_bottleneck.decompress(strings[0], shape)
        return {"x_hat": nn.functional.conv_transpose2d(y_hat, self.up, stride=16)}

    def update(self, force=False):
        return self.entropy_bottleneck.update(force=force)


class Ambiguous(MeanScaleHyperprior):
    """Two likelihoods of one resolution, neither called y."""

    def forward(self, x):
        out = super().forward(x)
        return out | {"likelihoods": {"first": out["likelihoods"]["y"], "second": out["likelihoods"]["y"]}}


class Windows(MeanScaleHyperprior):
    """Takes multiples of 128 pixels alone."""

    def forward(self, x):
        assert all(side % 128 == 0 for side in x.shape[2:]), "window does not fit"
        return super().forward(x)


class Large(MeanScaleHyperprior):
    """Takes pictures of 256 pixels and more alone: its padding reflects."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (255,) * 4, "reflect")[:, :, 255:-255, 255:-255])


class Full(MeanScaleHyperprior):
    """Has a layer whose numbers are of float32 alone."""

    def __init__(self, n, m):
        super().__init__(n, m)
        self.g_a.append(Mixing())


class Mixing(nn.Module):
    """Writes its input into a tensor of float32, in place of one of the input's type."""

    def forward(self, x):
        return torch.zeros(x.shape).index_add(0, torch.arange(len(x)), x)


class Inverted(MeanScaleHyperprior):
    """Mixes channels before it rounds them, and inverts the matrix to decode, in float32; NumPy draws the matrix."""

    def __init__(self, n, m):
        super().__init__(n, m)
        self.matrix = nn.Parameter(torch.from_numpy(np.linalg.qr(np.random.randn(m, m))[0].astype(np.float32)))

    def forward(self, x):
        y = nn.functional.conv2d(self.g_a(x), self.matrix[:, :, None, None])
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        scales, means = self.h_s(z_hat).chunk(2, 1)
        y_hat, y_likelihoods = self.gaussian_conditional(y, scales, means=means)
        return {"x_hat": self.synthesise(y_hat), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}

    def synthesise(self, y_hat):
        inverse = torch.inverse(self.matrix.double()).float()
        return self.g_s(nn.functional.conv2d(y_hat, inverse[:, :, None, None]))

    def compress(self, x):
        y = nn.functional.conv2d(self.g_a(x), self.matrix[:, :, None, None])
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        scales, means = self.h_s(self.entropy_bottleneck.decompress(z_strings, z.shape[2:])).chunk(2, 1)
        indexes = self.gaussian_conditional.build_indexes(scales)
        return {"strings": [self.gaussian_conditional.compress(y, indexes, means), z_strings], "shape": z.shape[2:]}

    def decompress(self, strings, shape):
        scales, means = self.h_s(self.entropy_bottleneck.decompress(strings[1], shape)).chunk(2, 1)
        indexes = self.gaussian_conditional.build_indexes(scales)
        return {"x_hat": self.synthesise(self.gaussian_conditional.decompress(strings[0], indexes, means=means))}


class InvertedPair(distillkit.CodecPair):
    """An invertible teacher and student."""

    def build_teacher(self):
        return Inverted(4, 8)

    build_student = build_teacher


class Forgetful(MeanScaleHyperprior):
    """Keeps a table that decoding needs in an attribute, and makes it anew nowhere but in its constructor."""

    made = 0

    def __init__(self, n, m):
        super().__init__(n, m)
        Forgetful.made += 1
        self.offset = 0.01 * Forgetful.made

    def decompress(self, strings, shape):
        return {"x_hat": super().decompress(strings, shape)["x_hat"] + self.offset}


class Cut(MeanScaleHyperprior):
    """Detaches what it returns."""

    def forward(self, x):
        out = super().forward(x)
        return {"x_hat": out["x_hat"].detach(), "likelihoods": {k: v.detach() for k, v in out["likelihoods"].items()}}


class Random(MeanScaleHyperprior):
    """Decodes with noise."""

    def decompress(self, strings, shape):
        x_hat = super().decompress(strings, shape)["x_hat"]
        return {"x_hat": x_hat + 0.01 * torch.rand_like(x_hat)}


class Cropped(MeanScaleHyperprior):
    """Returns another size than it was given."""

    def decompress(self, strings, shape):
        return {"x_hat": super().decompress(strings, shape)["x_hat"][:, :, 1:]}


class Shaken(MeanScaleHyperprior):
    """Draws initial weights by another generator than torch's."""

    def __init__(self, n, m):
        super().__init__(n, m)
        generator = torch.Generator()
        generator.seed()
        self.g_a[0].weight.data += torch.rand(self.g_a[0].weight.shape, generator=generator)


class Uncoded(MeanScaleHyperprior):
    """Has no working `compress`."""

    def compress(self, x):
        raise NotImplementedError("not written yet")


class Uncountable(MeanScaleHyperprior):
    """Trains, and fails where its arithmetic is counted: it wants a batch of more than one picture in `forward`."""

    def forward(self, x):
        if not self.training and torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("no modes, please")
        return super().forward(x)


FAULTS = {
    Unnamed: [
        "expected taps analysis, synthesis, latent, for FEDS, found",
        'return them from student_taps, for example {"analysis.1/4": "encoder.1", "latent": "encoder"}',
    ],
    Ambiguous: ["expected likelihoods of the latent as 'y', shape (B, C, h, w), got first, second; name them so"],
    Windows: ["it takes 128x128: return distillkit.CompressAIAdapter(codec, stride=128) from the pair"],
    Large: ["it takes 256x256: return distillkit.CompressAIAdapter(codec, stride=256) from the pair"],
    Full: [
        "a training step in bfloat16: RuntimeError",
        'train with precision = "fp32", keep its tensors of one type, or turn autocast off in its forward',
    ],
    Forgetful: ["decodes to another image once its state is loaded into a new one; keep all that it needs in"],
    Cut: ["a training step: RuntimeError: element 0 of tensors does not require grad", "correct forward in training"],
    Random: ["the same bytes decode to two images; decompress must not be random"],
    Cropped: ["decoded (1, 3, 63, 64) from (1, 3, 64, 64); return that size"],
    Shaken: [
        "expected initial weights that follow from the seed, got others; draw with torch's, NumPy's or Python's own"
    ],
    Uncoded: ["compress and decompress: NotImplementedError: not written yet; correct them, or wrap the codec"],
    Uncountable: ["counting its arithmetic: RuntimeError: no modes, please; `distillkit evaluate` would fail there"],
}


@pytest.fixture(scope="module")
def plugins():
    return distillkit.load_plugins()


@pytest.mark.slow
@pytest.mark.parametrize("codec", FAULTS)
def test_a_fault_is_a_line_with_its_fix(codec, plugins):
    class Pair(distillkit.CodecPair):
        def build_teacher(self):
            return MeanScaleHyperprior(4, 8)

        def build_student(self):
            return codec(4, 8)

    with pytest.raises(AssertionError) as caught:
        distillkit.testing.check_pair(Pair, plugins=plugins)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("Pair: expected a pair that trains, codes and is measured, got")
    assert any(all(words in line for words in FAULTS[codec]) for line in lines), lines
    assert all(line.startswith("  - student: ") or line.startswith("  - taps: ") for line in lines), lines


class NoLatent(distillkit.CodecPair):
    """Names its stages, and forgets the latent, which FEDS needs."""

    def build_teacher(self):
        return MeanScaleHyperprior(4, 8)

    build_student = build_teacher

    def teacher_taps(self):
        return {"analysis.1/4": "g_a.2", "synthesis.1/4": "g_s.2"}

    student_taps = teacher_taps


def test_a_latent_without_a_tap_is_found(plugins):
    message = (
        "teacher: expected taps latent, for FEDS, found analysis.1/4, synthesis.1/4; return them from teacher_taps"
    )
    with pytest.raises(AssertionError, match=message):
        distillkit.testing.check_pair(NoLatent, plugins=plugins)


def test_what_decodes_in_float32_alone_is_no_failure(plugins):
    """Its encoder runs in float64 too: only a try at decoding shows it."""
    with pytest.warns(UserWarning, match=r"(teacher|student): codec Inverted: .* do not run in torch.float64"):
        distillkit.testing.check_pair(InvertedPair, plugins=plugins)


def test_bf16_mask(plugins):
    """A float32 mask made in each call: trained under autocast, and coded so in bfloat16."""

    class Both(MeanScaleHyperprior):
        def __init__(self, n, m):
            super().__init__(n, m)
            self.g_a = nn.Sequential(*self.g_a[:6], Window(n), self.g_a[6])
            self.g_s = nn.Sequential(self.g_s[0], Window(n), *self.g_s[1:])

    torch.manual_seed(0)
    codec = distillkit.CompressAIAdapter(Both(4, 8).eval())
    codec.update()
    picture = torch.randint(256, (64, 96, 3), dtype=torch.uint8).numpy()
    fp32, *others = (distillkit.ImageCodec(codec, precision=precision) for precision in ("fp32", "bf16", "auto"))
    expected = fp32.decode(fp32.encode(picture)).astype(int)
    for coder in others:
        assert coder.is_fast
        assert coder.note is None
        assert abs(coder.decode(fp32.encode(picture)).astype(int) - expected).max() <= 4
        assert coder.decode(coder.encode(picture)).shape == picture.shape


@pytest.mark.parametrize("how", ["parameter", "slice", "view", "product"])
def test_flop_counter(how):
    """A view of a parameter passed to a module counts as anything else does."""
    from distillkit.model.complexity import kmac_per_pixel

    class Times(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x, factor):
            return self.conv(x) * factor

    class Net(MeanScaleHyperprior):
        def __init__(self, n, m):
            super().__init__(n, m)
            self.gain, self.times = nn.Parameter(torch.ones(1, 1, 1, 1)), Times()

        def forward(self, x):
            views = {
                "parameter": lambda: self.gain,
                "slice": lambda: self.gain[:1],
                "view": lambda: self.gain.view(1, 1, 1, 1)[0],
                "product": lambda: self.gain[:1] * 1,
            }
            return super().forward(self.times(x, views[how]()))

    plain = kmac_per_pixel(distillkit.CompressAIAdapter(MeanScaleHyperprior(4, 8)), 64)
    counted = kmac_per_pixel(distillkit.CompressAIAdapter(Net(4, 8)), 64)
    assert counted == pytest.approx(plain + 3 * 3 * 9 / 1000)
