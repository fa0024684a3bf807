"""Codecs of many rates: gain units by hand-computed values, and every shipped codec with them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from compressai.models import FactorizedPrior, MeanScaleHyperprior

import distillkit
import distillkit.testing
from distillkit.model.conditioned import FixedQuality, at_quality
from distillkit.model.gain_units import START_SPAN


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return distillkit.GainedCodec(MeanScaleHyperprior(8, 12), num_levels=3)


IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def latent(codec, quality):
    """Return what is quantised, before any noise: shape (B, 12, 4, 4)."""
    heard = []
    hook = codec.module.g_a.register_forward_hook(lambda *args: heard.append(args[2]))
    with torch.no_grad():
        codec.forward(IMAGES, quality)
    hook.remove()
    return heard[0]


def test_gains_lie_on_the_geometric_line_at_first(codec):
    gains = codec.module.gain
    for quality in (0.0, 0.2, 0.5, 1.0):
        expected = START_SPAN ** (quality - 0.5)
        assert gains.gains("y", quality).tolist() == [pytest.approx([expected] * 12)]
        assert gains.gains("y_inverse", quality).tolist() == [pytest.approx([1 / expected] * 12)]
        assert gains.gains("z", quality).tolist() == [pytest.approx([1.0] * 8)]
    assert pytest.approx(math.sqrt(0.0483 / 0.0018)) == START_SPAN


def test_between_two_levels_gains_are_geometric_means(codec):
    gains = codec.module.gain
    with torch.no_grad():
        gains.y[:] = torch.tensor([1.0, 4.0, 64.0]).log()[:, None]
    found = gains.gains("y", torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert found[:, 0].tolist() == pytest.approx([1, 2, 4, 16, 64])


def test_the_latent_is_scaled_before_it_is_quantised_and_back_before_synthesis(codec):
    codec.module.eval()
    low, high = latent(codec, 0.0), latent(codec, 1.0)
    assert torch.allclose(high, low * START_SPAN, rtol=1e-5)
    both = latent(codec, torch.tensor([0.0, 1.0]))
    assert torch.equal(both[0], low[0])
    assert torch.equal(both[1], high[1])


def test_a_fine_step_costs_more_bits_and_less_error(codec):
    codec.module.eval()
    with torch.no_grad():
        codec.module.g_a[-1].weight.mul_(30)  # an untrained analysis gives latents that all round to zero
        codec.module.g_s[0].weight.mul_(1 / 30)
        exact = codec.module.g_s(codec.module.g_a(IMAGES) / codec.module.gain.gains("y", 0.5)[..., None, None])
        errors, bits = [], []
        for quality in (0.0, 0.5, 1.0):
            output = codec.forward(IMAGES, quality)
            errors.append(float((output.x_hat - exact).square().mean()))
            bits.append(-float(output.likelihoods["y"].log2().sum()))
    assert bits == sorted(bits)
    assert errors == sorted(errors, reverse=True)


def test_names_of_weights_and_taps_stay(codec):
    plain = MeanScaleHyperprior(8, 12)
    extra = codec.module.state_dict().keys() - plain.state_dict().keys()
    assert extra == {"gain.y", "gain.y_inverse", "gain.z", "gain.z_inverse"}
    assert plain.state_dict().keys() < codec.module.state_dict().keys()


def test_a_copy_has_gains_of_its_own(codec):
    other = copy.deepcopy(codec)
    with torch.no_grad():
        other.module.gain.y.add_(1)
    codec.module.eval()
    other.module.eval()
    assert torch.allclose(latent(other, 0.5), latent(codec, 0.5) * math.e, rtol=1e-5)


def test_gradient_reaches_the_gains_of_the_qualities_that_were_drawn(codec):
    codec.module.train()
    output = codec.forward(IMAGES, torch.tensor([0.0, 0.25]))
    (output.x_hat.square().mean() - output.likelihoods["y"].log2().mean()).backward()
    by_level = codec.module.gain.y.grad.abs().sum(dim=1)
    assert by_level[0] > 0
    assert by_level[1] > 0
    assert by_level[2] == 0


def test_a_codec_without_a_hyper_latent():
    codec = distillkit.GainedCodec(FactorizedPrior(8, 12), num_levels=2)
    assert dict(codec.module.gain.named_parameters()).keys() == {"y", "y_inverse"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: distillkit.GainedCodec(MeanScaleHyperprior(8, 8), num_levels=1), "at least 2 levels"),
        (lambda: distillkit.GainedCodec(distillkit.GainedCodec(MeanScaleHyperprior(8, 8))), "a single rate"),
        (lambda: at_quality(distillkit.CompressAIAdapter(MeanScaleHyperprior(8, 8)), 0.4), "has a single rate"),
        (lambda: at_quality(distillkit.GainedCodec(MeanScaleHyperprior(8, 8)), 1.1), "from 0 to 1, got 1.1"),
        (lambda: at_quality(distillkit.GainedCodec(MeanScaleHyperprior(8, 8)), math.nan), "from 0 to 1, got nan"),
    ],
)
def test_errors(build, message):
    with pytest.raises(distillkit.PairError, match=message):
        build()


def test_a_codec_with_other_names_is_refused():
    net = MeanScaleHyperprior(8, 8)
    net.analysis, net.g_a = net.g_a, None
    with pytest.raises(distillkit.PairError, match="0 g_a, 1 g_s"):
        distillkit.GainedCodec(net)


def test_at_one_quality_it_is_a_codec_like_any_other(codec):
    codec.module.eval()
    codec.update()
    fixed = at_quality(codec, 0.8)
    assert isinstance(fixed, FixedQuality)
    assert at_quality(codec, None) is codec
    with torch.no_grad():
        assert torch.equal(fixed.forward(IMAGES).x_hat, codec.forward(IMAGES, 0.8).x_hat)
        assert torch.equal(fixed.decompress(fixed.compress(IMAGES)), codec.decompress(codec.compress(IMAGES, 0.8), 0.8))


def both(**codec):
    return {"teacher": codec, "student": codec}


PAIRS = [
    ("models.cheng2020", {"gain_units": 6}),
    pytest.param("models.swin", {"gain_units": 3}, marks=pytest.mark.slow),
    ("models.lowres", {"gain_units": 6}),
    ("models.compressai", both(architecture="bmshj2018-factorized", N=8, M=12, gain_units=2)),
    ("models.compressai", both(architecture="bmshj2018-hyperprior", N=8, M=12, gain_units=2)),
    pytest.param("models.compressai", both(architecture="mbt2018", N=8, M=12, gain_units=2), marks=pytest.mark.slow),
    pytest.param(
        "models.compressai",
        both(architecture="elic2022-official", N=8, groups=[4, 12], gain_units=2),
        marks=pytest.mark.slow,
    ),
    ("models.compressai", both(architecture="bmshj2018-hyperprior-vbr", N=8, M=12)),
    pytest.param(
        "models.compressai",
        both(architecture="bmshj2018-hyperprior-vbr", N=8, M=12, vr_entbttlnck=True),
        marks=pytest.mark.slow,
    ),
    pytest.param("models.compressai", both(architecture="mbt2018-mean-vbr", N=8, M=12), marks=pytest.mark.slow),
    ("models.compressai", both(architecture="mbt2018-mean-vbr", N=8, M=12, vr_entbttlnck=True)),
    pytest.param("models.compressai", both(architecture="mbt2018-vbr", N=8, M=12), marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), PAIRS, ids=str)
def test_every_shipped_codec_passes_the_contract(name, options):
    distillkit.testing.check_pair(distillkit.load_plugins().components["pair"][name], **options)
