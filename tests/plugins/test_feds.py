from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

import distillkit
from distillkit.model.adapters import CodecOutput
from distillkit.taps.pair import TapPair
from distillkit.training.losses import Step
from distillkit.training.objectives.objective import rate_distortion

PLUGINS = distillkit.load_plugins()
Alignment = PLUGINS.components["loss"]["feds.alignment"]
ChannelEntropy = PLUGINS.components["loss"]["feds.channel_entropy"]
Staged = PLUGINS.components["schedule"]["feds.staged"]


def shapes(student=4, teacher=4, role="latent", side=2):
    return distillkit.TapShapes(
        {role: distillkit.TapShape(student, 2, 2)}, {role: distillkit.TapShape(teacher, side, side)}
    )


def step(student, teacher, role="latent"):
    images = torch.zeros(1, 3, 8, 8)
    return Step(images, CodecOutput(images, {}), {role: TapPair(student, teacher)})


def channel_entropy(bits, student=4, **options):
    term = ChannelEntropy(ChannelEntropy.Config(**options), shapes(student, len(bits)))
    term.load_calibration({"bits_per_pixel": bits})
    return term


class TestRateDistortion:
    def test_by_hand(self):
        images = torch.zeros(2, 3, 4, 4)
        likelihoods = {"y": torch.full((2, 5, 1, 1), 0.5), "z": torch.full((2, 2, 1, 1), 0.25)}
        rate_bpp, mse, _, cost = rate_distortion(CodecOutput(images + 0.1, likelihoods), images, 0.01)
        assert rate_bpp.item() == pytest.approx((10 * 1 + 4 * 2) / 32)
        assert mse.item() == pytest.approx(0.01)
        assert cost.item() == pytest.approx(0.01 * 255**2 * 0.01 + 18 / 32)


class TestAlignment:
    def test_is_zero_where_equal(self):
        features = torch.randn(2, 4, 2, 2)
        assert Alignment(Alignment.Config(taps=("latent",)), shapes())(step(features, features)).item() == 0

    def test_is_one_for_the_mean_of_each_channel(self):
        teacher = torch.randn(64, 4, 2, 2) * torch.tensor([1.0, 5, 0.1, 2]).view(1, 4, 1, 1) + 3
        guess = teacher.mean(dim=(0, 2, 3), keepdim=True).expand_as(teacher)
        loss = Alignment(Alignment.Config(taps=("latent",)), shapes())(step(guess, teacher))
        assert loss.item() == pytest.approx(1, rel=1e-5)

    def test_by_hand(self):
        teacher = torch.tensor([0.0, 2.0, 0.0, 2.0]).view(1, 1, 2, 2)  # variance 1
        student = teacher + torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
        loss = Alignment(Alignment.Config(taps=("latent",)), shapes(1, 1))(step(student, teacher))
        assert loss.item() == pytest.approx(0.25)

    def test_is_the_mean_over_taps(self):
        both = distillkit.TapShapes(*[{r: distillkit.TapShape(1, 2, 2) for r in ("latent", "synthesis.1/2")}] * 2)
        term = Alignment(Alignment.Config(taps=("*",)), both)
        teacher = torch.tensor([0.0, 2.0, 0.0, 2.0]).view(1, 1, 2, 2)
        images = torch.zeros(1, 3, 8, 8)
        taps = {"latent": TapPair(teacher, teacher), "synthesis.1/2": TapPair(teacher + 1, teacher)}
        assert term(Step(images, CodecOutput(images, {}), taps)).item() == pytest.approx(0.5)

    def test_adapters_only_where_widths_differ(self):
        assert not list(Alignment(Alignment.Config(taps=("latent",)), shapes()).parameters())
        term = Alignment(Alignment.Config(taps=("latent",)), shapes(4, 6))
        assert [p.shape for p in term.parameters()] == [(6, 4, 1, 1), (6,)]

    def test_other_resolution_is_an_error_unless_resized(self):
        with pytest.raises(ValueError, match="got 2x2 in the student and 4x4 in the teacher. Set resize = true"):
            Alignment(Alignment.Config(taps=("latent",)), shapes(side=4))
        term = Alignment(Alignment.Config(taps=("latent",), resize=True), shapes(side=4))
        assert term(step(torch.randn(1, 4, 2, 2), torch.randn(1, 4, 4, 4))).isfinite()

    def test_a_pattern_without_a_match_is_an_error(self):
        with pytest.raises(ValueError, match=r"no tap matches 'latnt'; there are latent. Did you mean 'latent'\?"):
            Alignment(Alignment.Config(taps=("latnt",)), shapes())


class TestChannelEntropy:
    BITS = (1.0, 6.0, 0.0, 3.0)

    def test_calibration_counts_the_bits_of_each_channel_by_hand(self):
        term = ChannelEntropy(ChannelEntropy.Config(calibration_crops=3), shapes())
        likelihoods = torch.tensor([0.5, 0.25, 1.0, 0.125]).view(1, 4, 1, 1)

        def batches(num_crops):
            assert num_crops == 3
            yield torch.zeros(2, 3, 4, 4)
            yield torch.zeros(1, 3, 4, 4)

        def teacher(images):
            return CodecOutput(images, {"y": likelihoods.expand(len(images), 4, 2, 2), "z": torch.full((1,), 0.5)})

        record = term.calibrate(distillkit.Calibration(teacher, batches))
        assert record["bits_per_pixel"] == pytest.approx([4 * 1 / 16, 4 * 2 / 16, 0, 4 * 3 / 16])

    def test_keep_takes_the_smallest_set_that_carries_the_share(self):
        assert channel_entropy(self.BITS, keep=0.59).teacher_channels.tolist() == [1]
        assert channel_entropy(self.BITS, keep=0.61).teacher_channels.tolist() == [1, 3]
        assert channel_entropy(self.BITS, keep=0.9).teacher_channels.tolist() == [1, 3]
        assert channel_entropy(self.BITS, keep=0.91).teacher_channels.tolist() == [1, 3, 0]

    def test_keep_everything(self):
        assert sorted(channel_entropy(self.BITS, keep=1.0).teacher_channels.tolist())[:2] == [0, 1]

    def test_weights_are_shares_of_the_chosen_bits(self):
        assert channel_entropy(self.BITS, keep=0.9).weights[0].tolist() == pytest.approx([6 / 9, 3 / 9])

    def test_loss_by_hand(self):
        term = channel_entropy(self.BITS, keep=0.9)
        teacher = torch.zeros(1, 4, 2, 2)
        student = torch.zeros(1, 4, 2, 2)
        student[:, 1], student[:, 3], student[:, 2] = 1.0, 2.0, 100.0  # channel 2 is not chosen
        assert term(step(student, teacher)).item() == pytest.approx(6 / 9 * 1 + 3 / 9 * 4)

    def test_variance_division_by_hand(self):
        term = channel_entropy((1.0,), student=1, keep=1.0, divide_by_variance=True)
        teacher = torch.tensor([0.0, 4.0, 0.0, 4.0]).view(1, 1, 2, 2)  # variance 4
        assert term(step(teacher + 1, teacher)).item() == pytest.approx(0.25)

    def test_a_narrower_student_stands_for_the_channels_in_rank_order(self):
        term = channel_entropy(self.BITS, student=2, keep=1.0)
        assert term.teacher_channels.tolist() == [1, 3]
        assert term.student_channels.tolist() == [0, 1]
        teacher = torch.randn(1, 4, 2, 2)
        assert term(step(teacher[:, [1, 3]], teacher)).item() == 0

    def test_controls_take_as_many_channels(self):
        kept = channel_entropy(self.BITS, keep=0.9)
        lowest = channel_entropy(self.BITS, keep=0.9, select="lowest")
        random = [channel_entropy(self.BITS, keep=0.9, select="random", seed=seed) for seed in range(8)]
        assert kept.weights.shape[1] == lowest.weights.shape[1] == 2
        assert lowest.teacher_channels.tolist() == [0, 2]
        assert all(term.weights.shape[1] == 2 for term in random)
        assert len({tuple(term.teacher_channels.tolist()) for term in random}) > 1
        again = channel_entropy(self.BITS, keep=0.9, select="random", seed=3)
        assert again.teacher_channels.tolist() == random[3].teacher_channels.tolist()

    def test_top_takes_its_number(self):
        assert channel_entropy(self.BITS, select="top", num_channels=3).teacher_channels.tolist() == [1, 3, 0]

    def test_a_teacher_without_bits_gives_equal_weights(self):
        term = channel_entropy((0.0, 0.0), student=2, select="top", num_channels=2)
        assert term.weights[0].tolist() == [0.5, 0.5]

    def test_a_wider_student_is_an_error(self):
        with pytest.raises(ValueError, match="at most 4 channels"):
            ChannelEntropy(ChannelEntropy.Config(), shapes(5, 4))

    def test_top_needs_its_number(self):
        with pytest.raises(ValueError, match="needs num_channels"):
            ChannelEntropy(ChannelEntropy.Config(select="top"), shapes())

    def test_a_record_of_another_teacher_is_an_error(self):
        with pytest.raises(ValueError, match="4 channels, got shape"):
            ChannelEntropy(ChannelEntropy.Config(), shapes()).load_calibration({"bits_per_pixel": [1.0, 2.0]})
        with pytest.raises(ValueError, match="finite"):
            ChannelEntropy(ChannelEntropy.Config(), shapes()).load_calibration({"bits_per_pixel": [math.nan] * 4})


class TestStaged:
    TERMS = ("feds.alignment", "feds.channel_entropy")

    def phases(self, num_steps=100, terms=TERMS, **options):
        return Staged(Staged.Config(**options)).phases(num_steps, terms)

    def test_three_phases(self):
        align, channel, finetune = self.phases()
        assert [p.num_steps for p in (align, channel, finetune)] == [40, 40, 20]
        assert align.weights_at(0) == align.weights_at(39) == {"feds.alignment": 1.0}
        assert finetune.weights_at(0) == {}
        assert [p.learning_rate for p in (align, channel, finetune)] == [1.0, 1.0, 0.1]
        assert [p.balance for p in (align, channel, finetune)] == [0.5, 0.5, None]

    def test_alignment_falls_to_zero_within_its_share_of_phase_two(self):
        _, channel, _ = self.phases()
        assert channel.weights_at(0)["feds.alignment"] == 1.0
        assert channel.weights_at(10)["feds.alignment"] == pytest.approx(0.5)
        assert channel.weights_at(19)["feds.alignment"] == pytest.approx(0.05)
        assert channel.weights_at(20) == {"feds.channel_entropy": 1.0}

    def test_an_ablation_keeps_the_phases(self):
        for terms in ((), self.TERMS[:1], self.TERMS[1:]):
            phases = self.phases(terms=terms)
            assert [p.num_steps for p in phases] == [40, 40, 20]
            assert {name for p in phases for name in p.weights} == set(terms)

    def test_balance_may_be_off(self):
        assert [p.balance for p in self.phases(balance=0)] == [None, None, None]

    def test_the_teacher_may_be_wanted_in_one_of_so_many_steps(self):
        assert [p.every for p in self.phases()] == [1, 1, 1]
        align, channel, finetune = self.phases(every=4)
        assert [p.every for p in (align, channel, finetune)] == [4, 4, 1]
        assert align.weights_at(4) == {"feds.alignment": 4.0}
        assert channel.weights_at(21) == {}
        with pytest.raises(ValidationError):
            self.phases(every=0)

    def test_a_term_of_another_plugin_needs_a_place(self):
        with pytest.raises(ValueError, match="no place for 'gram.gram'"):
            self.phases(terms=("gram.gram",))
        first, _, _ = self.phases(terms=("gram.gram",), alignment=("gram.gram",))
        assert first.weights_at(0) == {"gram.gram": 1.0}

    def test_shares_above_one_are_an_error(self):
        with pytest.raises(ValueError, match="at most 1 together"):
            self.phases(alignment_share=0.7, channel_share=0.7)
