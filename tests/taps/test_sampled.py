"""Taps at some of their positions."""

from __future__ import annotations

import pytest
import torch

import distillkit
from distillkit.taps.sampled import sample, tap_and_stride
from distillkit.testing import check_loss_term

Alignment = distillkit.load_plugins().components["loss"]["feds.alignment"]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_position_of_each_cell_and_each_phase_of_an_upsampling_equally_often(memory_format):
    positions = torch.arange(12.0 * 8).view(1, 1, 12, 8)
    features = torch.cat([positions, -positions], dim=1).to(memory_format=memory_format)
    chosen = sample(features, 2)
    assert chosen.shape == (1, 2, 6, 4)
    assert torch.equal(chosen[:, 1], -chosen[:, 0])
    row, column = chosen[0, 0].long() // 8, chosen[0, 0].long() % 8
    assert torch.equal(row // 2, torch.arange(6)[:, None].expand(6, 4))
    assert torch.equal(column // 2, torch.arange(4)[None, :].expand(6, 4))
    assert torch.bincount((row % 2 * 2 + column % 2).flatten()).tolist() == [6, 6, 6, 6]


def test_sides_that_are_no_multiple_of_the_cell():
    assert sample(torch.zeros(2, 3, 7, 11), 3).shape == (2, 3, 2, 3)


def test_names():
    assert distillkit.sampled("analysis.1/2", 1) == "analysis.1/2"
    assert tap_and_stride(distillkit.sampled("analysis.1/2", 4)) == ("analysis.1/2", 4)
    assert tap_and_stride("my@tap") == ("my@tap", 1)


def test_alignment_samples_wide_maps_only_and_agrees_with_all_positions():
    shapes = {"analysis.1/2": distillkit.TapShape(8, 64, 64), "latent": distillkit.TapShape(8, 8, 8)}
    shapes = distillkit.TapShapes(shapes, shapes)
    taps = ("analysis.1/2", "latent")
    some, all_of_them = (Alignment(Alignment.Config(taps=taps, positions=n), shapes) for n in (1024, 0))
    assert some.required_taps() == {"analysis.1/2@2", "latent"}
    assert all_of_them.required_taps() == set(taps)
    torch.manual_seed(0)
    pairs = {role: tuple(torch.randn(8, *shapes.student[role]) for _ in range(2)) for role in taps}
    sampled = {"latent": pairs["latent"], "analysis.1/2@2": tuple(sample(side, 2) for side in pairs["analysis.1/2"])}
    images = torch.zeros(1, 3, 8, 8)

    def loss(term, features):
        features = {role: distillkit.TapPair(*sides) for role, sides in features.items()}
        return term(distillkit.Step(images, distillkit.CodecOutput(images, {}), features)).item()

    assert loss(some, sampled) == pytest.approx(loss(all_of_them, pairs), rel=0.01)


def test_the_kit_checks_a_term_of_sampled_taps():
    class Sampled(distillkit.LossTerm):
        def required_taps(self):
            return {"analysis.1/2@4"}

        def forward(self, step):
            student, _ = step.taps["analysis.1/2@4"]
            assert student.shape[2:] == (8, 8)
            return student.square().mean()

    check_loss_term(Sampled)
