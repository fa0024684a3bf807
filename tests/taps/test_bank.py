from __future__ import annotations

import pytest
import torch
from torch import nn

from distillkit.errors import PairError, TapError
from distillkit.model.adapters import CodecAdapter, CodecOutput
from distillkit.taps.bank import TapBank
from distillkit.taps.pair import TeachingPair
from distillkit.taps.points import Tap
from distillkit.taps.provider import find_taps


class Codec(CodecAdapter):
    """Any network as a codec; good enough for whatever happens before an entropy coder."""

    stride = 4

    def __init__(self, module):
        self.module = module

    def forward(self, images):
        return CodecOutput(self.module(images), {"y": torch.full((1, 1, 1, 1), 0.5)})

    def compress(self, images):
        raise AssertionError

    def decompress(self, latents):
        raise AssertionError


def inplace_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(inplace=True), nn.Conv2d(4, 3, 3, padding=1))


def test_a_tap_before_an_inplace_activation_keeps_what_the_convolution_gave():
    net, images = inplace_net(), torch.rand(1, 3, 8, 8)
    bank = TapBank(Codec(net), {"conv": "0", "end": "2"}, "student")
    bank.probe(images)
    assert bank.copied == {"conv"}
    expected = net[0](images)
    _, features = bank.run(images, ["conv", "end"])
    assert (expected < 0).any()  # otherwise the activation would change nothing
    assert torch.equal(features["conv"], expected)


def test_an_overwritten_tap_that_was_not_probed_is_an_error():
    bank = TapBank(Codec(inplace_net()), {"conv": "0"}, "student")
    with pytest.raises(TapError, match=r"tap 'conv': the output of '0' of student Sequential was overwritten"):
        bank.run(torch.rand(1, 3, 8, 8), ["conv"])


def test_two_overwritten_taps_are_both_copied():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1), nn.ReLU(inplace=True))
    bank = TapBank(Codec(net), {"a": "0", "b": "2", "c": "3"}, "student")
    bank.probe(torch.rand(1, 3, 8, 8))
    assert bank.copied == {"a", "b"}


def test_gradient_flows_through_a_copied_tap():
    net = inplace_net()
    bank = TapBank(Codec(net), {"conv": "0"}, "student")
    bank.probe(torch.rand(1, 3, 8, 8))
    _, features = bank.run(torch.rand(1, 3, 8, 8), ["conv"])
    features["conv"].sum().backward()
    assert net[0].weight.grad.abs().sum() > 0


def test_unknown_path_is_named_with_a_suggestion():
    net = nn.Sequential()
    net.g_a = nn.Sequential()
    net.g_a.conv = nn.Conv2d(3, 3, 1)
    with pytest.raises(
        TapError, match=r"no module or method 'g_a.convv' in teacher Sequential. Did you mean 'g_a.conv'\?"
    ):
        TapBank(Codec(net), {"x": "g_a.convv"}, "teacher")


def test_a_tap_that_does_not_fire_is_an_error():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.used(x)

    bank = TapBank(Codec(Lazy()), {"lost": "unused"}, "student")
    with pytest.raises(TapError, match="'unused' of student Lazy did not run"):
        bank.probe(torch.rand(1, 3, 8, 8))


def test_a_module_that_runs_twice_is_an_error():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x))

    bank = TapBank(Codec(Twice()), {"conv": "conv"}, "student")
    with pytest.raises(TapError, match="ran twice in one forward pass"):
        bank.probe(torch.rand(1, 3, 8, 8))


def test_a_module_that_returns_no_tensor_is_an_error():
    class Several(nn.Module):
        def forward(self, x):
            return {"x_hat": x}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Several()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.inner(x)["x_hat"] * self.weight

    with pytest.raises(TapError, match="to return one tensor, or a list of them, got dict"):
        TapBank(Codec(Outer()), {"x": "inner"}, "student").probe(torch.rand(1, 3, 8, 8))


def test_asking_for_a_role_that_was_not_found_names_those_there_are():
    bank = TapBank(Codec(inplace_net()), {"latent": "2"}, "student")
    with pytest.raises(TapError, match=r"no tap 'latnt' in student Sequential; it has latent. Did you mean 'latent'\?"):
        bank.run(torch.rand(1, 3, 8, 8), ["latnt"])


def test_stopping_early_runs_nothing_behind_the_last_tap():
    net, calls = inplace_net(), []
    net[2].register_forward_hook(lambda *_: calls.append(2))
    bank = TapBank(Codec(net), {"activation": "1"}, "teacher")
    output, features = bank.run(torch.rand(1, 3, 8, 8), ["activation"], stop_early=True)
    assert output is None
    assert not calls
    assert set(features) == {"activation"}
    output, _ = bank.run(torch.rand(1, 3, 8, 8), [], stop_early=True)
    assert output is not None  # nothing asked for: nothing to stop at
    assert calls == [2]


def test_captures_of_one_pass_are_not_seen_in_the_next():
    bank = TapBank(Codec(inplace_net()), {"activation": "1"}, "student")
    _, first = bank.run(torch.zeros(1, 3, 8, 8), ["activation"])
    _, second = bank.run(torch.ones(1, 3, 8, 8), ["activation"])
    assert not torch.equal(first["activation"], second["activation"])


def test_two_pairs_may_share_a_network():
    net, images = inplace_net(), torch.rand(1, 3, 8, 8)
    first, second = (TapBank(Codec(net), {"activation": "1"}, "student") for _ in range(2))
    _, a = first.run(images, ["activation"])
    _, b = second.run(images, ["activation"])
    assert torch.equal(a["activation"], b["activation"])


def test_resolution_taps_are_the_last_block_of_each_stage(plugins):
    from compressai.models import Cheng2020Anchor

    provider = plugins.components["taps"]["models.by_resolution"]
    assert find_taps(Cheng2020Anchor(8), provider(provider.Config()), (128, 128)) == {
        "analysis.1/2": "g_a.1",
        "analysis.1/4": "g_a.3",
        "analysis.1/8": "g_a.5",
        "latent": "g_a",
        "synthesis.1/16": "g_s.0",
        "synthesis.1/8": "g_s.2",
        "synthesis.1/4": "g_s.4",
        "synthesis.1/2": "g_s.6",
        "reconstruction": "g_s",
        "hyper_latent": "h_a",
        "hyper_parameters": "h_s",
        "entropy_parameters": "entropy_parameters",
        "quantised_latent": Tap("g_s", takes=True),
        "quantised_hyper_latent": Tap("h_s", takes=True),
    }


@pytest.mark.parametrize(
    "names",
    [("encoder", "decoder", "hyper_encoder", "hyper_decoder"), ("enc", "dec", "hyper_enc", "hyper_dec")],
)
def test_transforms_may_have_other_usual_names_at_any_depth(plugins, names):
    from compressai.models import Cheng2020Anchor

    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            codec = Cheng2020Anchor(8)
            self.coder = nn.ModuleDict(dict(zip(names, (codec.g_a, codec.g_s, codec.h_a, codec.h_s), strict=True)))

        def forward(self, images):
            encode, decode, analyse, synthesise = (self.coder[name] for name in names)
            y = encode(images)
            synthesise(analyse(y))
            return decode(y)

    provider = plugins.components["taps"]["models.by_resolution"]
    taps = find_taps(Codec(Renamed()), provider(provider.Config()), (128, 128))
    encoder, decoder, hyper_encoder, hyper_decoder = (f"coder.{name}" for name in names)
    assert taps == {
        "analysis.1/2": f"{encoder}.1",
        "analysis.1/4": f"{encoder}.3",
        "analysis.1/8": f"{encoder}.5",
        "latent": encoder,
        "synthesis.1/16": f"{decoder}.0",
        "synthesis.1/8": f"{decoder}.2",
        "synthesis.1/4": f"{decoder}.4",
        "synthesis.1/2": f"{decoder}.6",
        "reconstruction": decoder,
        "hyper_latent": hyper_encoder,
        "hyper_parameters": hyper_decoder,
        "entropy_parameters": hyper_decoder,
        "quantised_latent": Tap(decoder, takes=True),
        "quantised_hyper_latent": Tap(hyper_decoder, takes=True),
    }


def down(stride):
    return Codec(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=stride, padding=1), nn.Upsample(scale_factor=stride), nn.Conv2d(4, 3, 1)
        )
    )


def test_latents_of_other_resolution_cannot_be_paired():
    pair = TeachingPair(down(4), down(2), ({"latent": "0"}, {"latent": "0"}))
    with pytest.raises(PairError, match="latents of one resolution, got 4x4 from the teacher and 8x8 from the student"):
        pair.probe((16, 16))


def test_reconstructions_of_other_size_cannot_be_paired():
    half = Codec(nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1)))
    with pytest.raises(PairError, match="reconstructions of one size"):
        TeachingPair(down(2), half, ({}, {})).probe((16, 16))


def test_crops_must_suit_the_stride():
    with pytest.raises(PairError, match=r"multiples of 4, got 18x18. Change the recipe's data.crop"):
        TeachingPair(down(2), down(2), ({}, {})).probe((18, 18))


def test_the_teacher_is_frozen_and_in_eval_mode():
    teacher, student = down(2), down(2)
    pair = TeachingPair(teacher, student, ({"latent": "0"}, {"latent": "0"}))
    teacher.module.train()  # as a parent's .train() would
    features = pair.run_teacher(torch.rand(1, 3, 16, 16), ["latent"])
    assert not teacher.module.training
    assert not features["latent"].requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())


class Groups(nn.Module):
    """Two groups of channels, as a list from one module and from a module each."""

    def __init__(self, second_stride=1):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1, stride=second_stride)
        self.both, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x):
        first, second = self.both([self.first(x), self.second(x)])
        self.act(second)
        return first[:, :1].expand(-1, 3, -1, -1) + second.mean()


@pytest.mark.parametrize("tap", ["both", Tap(("first", "second")), Tap("both", read=lambda both: both[:])])
def test_a_tap_may_be_a_list_of_tensors(tap):
    net = Groups()
    bank, images = TapBank(Codec(net), {"latent": tap}, "student"), torch.rand(1, 3, 8, 8)
    _, shapes = bank.probe(images)
    assert shapes["latent"] == (6, 8, 8)
    assert bank.groups == {"latent": (2, 4)}
    expected = torch.cat([net.first(images), net.second(images)], 1)
    assert (expected < 0).any()  # the activation overwrites what was tapped
    assert torch.equal(bank.run(images, ["latent"])[1]["latent"], expected)
    assert bank.run(images, ["latent@2"], stop_early=True)[1]["latent@2"].shape == (1, 6, 4, 4)


def test_tensors_of_two_resolutions_are_no_list():
    bank = TapBank(Codec(Groups(2)), {"latent": "both"}, "student")
    with pytest.raises(TapError, match="tap 'latent': expected tensors of one resolution .* got 8x8, 4x4"):
        bank.probe(torch.rand(1, 3, 8, 8))
    empty = TapBank(Codec(Groups()), {"latent": Tap("both", read=lambda _: [])}, "student")
    with pytest.raises(TapError, match="'both' of student Groups returned an empty list"):
        empty.probe(torch.rand(1, 3, 8, 8))


def test_no_early_stop_before_the_last_of_a_list():
    net, calls = Groups(), []
    net.second.register_forward_hook(lambda *_: calls.append("second"))
    bank = TapBank(Codec(net), {"latent": Tap(("first", "second"))}, "teacher")
    bank.run(torch.rand(1, 3, 8, 8), ["latent"], stop_early=True)
    assert calls == ["second"]
    with pytest.raises(TapError, match="no module or method 'secnd' in teacher Groups. Did you mean 'second'"):
        TapBank(Codec(Groups()), {"latent": Tap(("first", "secnd"))}, "teacher")
