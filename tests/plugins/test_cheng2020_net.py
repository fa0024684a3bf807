"""The Cheng2020-style network: any size, any image, real bytes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from distillkit_models.cheng2020_net import (
    Cheng2020,
    FirstBlock,
    ResidualBlockWithStride,
    size_of,
)
from distillkit_models.cheng2020_presets import PRESETS, Cheng2020Size
from distillkit_models.swin_block import SwinBlock, num_heads
from torch import Tensor

from distillkit.model.adapters import CompressAIAdapter

TEACHER, STUDENT = PRESETS["tiny"]
SIZES = {f"{name}-{part}": size for name, pair in PRESETS.items() for part, size in zip("TS", pair, strict=True)}


def active_swin_block(window: int, *, shifted: bool, width: int = 32) -> SwinBlock:
    torch.manual_seed(0)
    swin = SwinBlock(width, window, shifted=shifted).eval()
    torch.nn.init.ones_(swin.block.norm1.weight)
    torch.nn.init.ones_(swin.block.norm2.weight)
    return swin


def active_codec(size: Cheng2020Size, images: Tensor) -> Cheng2020:
    """A random codec whose attention is on and whose y and predicted scales are about 2 quantisation steps wide."""
    torch.manual_seed(0)
    codec = Cheng2020(size).eval()
    with torch.no_grad():
        for module in codec.modules():
            if isinstance(module, SwinBlock):
                module.block.norm1.weight.fill_(0.1)
                module.block.norm2.weight.fill_(0.1)
        factor = 2 / codec.g_a(images).std()
        last_conv = [module for module in codec.g_a if isinstance(module, torch.nn.Conv2d)][-1]
        for parameter in last_conv.parameters():
            parameter.mul_(factor)
        codec.latent_codec["y"].entropy_parameters[-1].bias[: size.latent] = 2
    codec.update()
    return codec


def num_parameters(size: Cheng2020Size) -> int:
    return sum(parameter.numel() for parameter in Cheng2020(size).parameters())


def test_presets_are_data_without_torch() -> None:
    path = sys.modules[Cheng2020Size.__module__].__file__
    code = f"import runpy, sys; runpy.run_path({path!r}, run_name='presets'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", PRESETS)
def test_students_are_smaller_and_keep_the_latent(name: str) -> None:
    teacher, student = PRESETS[name]
    assert student.latent == teacher.latent
    assert student.swin_depth == 0 < teacher.swin_depth
    assert num_parameters(student) <= 0.37 * num_parameters(teacher)


@pytest.mark.parametrize("name", SIZES)
def test_state_dict_gives_size_and_weights_back_after_update(name: str) -> None:
    codec = Cheng2020(SIZES[name])
    codec.update()
    state = codec.state_dict()
    loaded = Cheng2020.from_state_dict(state)
    assert loaded.size == codec.size
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in state.items())


@pytest.mark.parametrize(
    "size",
    [
        Cheng2020Size(16, 24, 0, 0, 16, 16, 3),
        Cheng2020Size(16, 24, 2, 1, 8, 16, 7),
        Cheng2020Size(24, 40, 1, 4, 16, 8),
    ],
)
def test_size_is_read_from_shapes(size: Cheng2020Size) -> None:
    assert size_of(Cheng2020(size).state_dict()) == size


def test_a_missing_weight_is_not_forgiven() -> None:
    state = Cheng2020(STUDENT).state_dict()
    del state["g_s.0.conv.bias"]
    with pytest.raises(RuntimeError, match=r"g_s\.0\.conv\.bias"):
        Cheng2020.from_state_dict(state)


@pytest.mark.parametrize("size", [TEACHER, STUDENT, Cheng2020Size(16, 32, 2, 0, 16, 16)])
def test_children_halve_the_resolution_stage_by_stage(size: Cheng2020Size) -> None:
    codec = Cheng2020(size).eval()
    images = torch.rand(1, 3, 64, 128)
    heights: list[int] = []
    with torch.no_grad():
        features = images
        for child in codec.g_a:
            features = child(features)
            heights.append(features.shape[2])
        assert features.shape == (1, size.latent, 4, 8)
        assert sorted(set(heights), reverse=True) == [32, 16, 8, 4]
        heights.clear()
        for child in codec.g_s:
            features = child(features)
            heights.append(features.shape[2])
    assert features.shape == images.shape
    assert sorted(set(heights) - {4}) == [8, 16, 32, 64]


def test_a_fresh_swin_block_is_the_identity_and_learns() -> None:
    torch.manual_seed(0)
    swin = SwinBlock(32, 4, shifted=True)
    features = torch.randn(2, 32, 8, 12)
    assert torch.equal(swin(features), features)
    optimizer = torch.optim.SGD(swin.parameters(), lr=0.1)
    for _ in range(2):  # the first step opens the norms, the second reaches the attention
        optimizer.zero_grad()
        (swin(features) ** 2).mean().backward()
        optimizer.step()
    assert swin.block.attn.qkv.weight.grad.abs().sum() > 0
    assert not torch.equal(swin(features), features)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_swin_block_keeps_the_memory_format(memory_format: torch.memory_format) -> None:
    features = torch.randn(1, 32, 8, 8).contiguous(memory_format=memory_format)
    assert active_swin_block(8, shifted=True)(features).is_contiguous(memory_format=memory_format)


def touched(swin: SwinBlock, row: int, column: int, height: int, width: int) -> Tensor:
    """Where the output moves when one position of the input does: a boolean map, shape (height, width)."""
    features = torch.randn(1, 32, height, width, generator=torch.Generator().manual_seed(1))
    moved = features.clone()
    moved[:, :, row, column] += 1
    with torch.no_grad():
        return (swin(moved) != swin(features)).any(dim=1)[0]


def test_attention_reaches_its_window_and_no_further() -> None:
    expected = torch.zeros(16, 24, dtype=torch.bool)
    expected[8:16, 8:16] = True
    assert torch.equal(touched(active_swin_block(8, shifted=False), 9, 9, 16, 24), expected)
    shifted = torch.zeros(16, 24, dtype=torch.bool)
    shifted[4:12, 4:12] = True
    assert torch.equal(touched(active_swin_block(8, shifted=True), 9, 9, 16, 24), shifted)


def test_a_shifted_block_never_wraps_around_even_in_one_window() -> None:
    swin = active_swin_block(8, shifted=True)
    corner = torch.zeros(8, 8, dtype=torch.bool)
    corner[:4, :4] = True
    assert torch.equal(touched(swin, 0, 0, 8, 8), corner)
    corner = torch.zeros(16, 16, dtype=torch.bool)
    corner[12:, 12:] = True
    assert torch.equal(touched(swin, 15, 15, 16, 16), corner)


def test_results_do_not_depend_on_the_sizes_seen_before() -> None:
    fresh, used = (active_codec(TEACHER, torch.rand(1, 3, 64, 64, generator=torch.Generator())) for _ in range(2))
    images = torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        for height, width in ((64, 64), (192, 64), (64, 320)):
            assert used(torch.rand(1, 3, height, width))["x_hat"].shape == (1, 3, height, width)
        assert torch.equal(used(images)["x_hat"], fresh(images)["x_hat"])


def test_bfloat16_stays_close_to_float32() -> None:
    images = torch.rand(2, 3, 64, 128)
    codec = active_codec(TEACHER, images)
    with torch.no_grad():
        exact = codec.g_a(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = codec.g_a(images)
    assert (rounded.float() - exact).square().mean() < 1e-3 * exact.square().mean()


@pytest.mark.parametrize("size", [TEACHER, STUDENT])
def test_a_training_step_reaches_every_parameter(size: Cheng2020Size) -> None:
    torch.manual_seed(0)
    codec = CompressAIAdapter(Cheng2020(size))
    codec.module.train()
    images = torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output = codec.forward(images)
    bits = sum(-likelihood.log2().sum() for likelihood in output.likelihoods.values())
    ((output.x_hat.float() - images).square().mean() * 100 + bits / images.numel() + codec.aux_loss()).backward()
    without = [name for name, parameter in codec.module.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in codec.module.parameters())
    assert all(parameter.grad.any() for name, parameter in codec.module.named_parameters() if "norm" in name)


@pytest.mark.parametrize("size", [TEACHER, STUDENT])
def test_bytes_decode_to_the_same_image_at_the_estimated_rate(size: Cheng2020Size) -> None:
    images = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(1))
    codec = active_codec(size, images)
    with torch.no_grad():
        latents = codec.compress(images)
        decoded = [codec.decompress(latents["strings"], latents["shape"])["x_hat"] for _ in range(2)]
        assert torch.equal(decoded[0], decoded[1])
        assert torch.equal(decoded[0], codec.g_s(latents["y_hat"]).clamp(0, 1))
        estimate = {key: -p.log2().sum().item() for key, p in codec(images)["likelihoods"].items()}
    *y_strings, z_strings = latents["strings"]
    # The coder rounds each scale up to the next of 64, at most 13 % apart, which the estimate does not.
    assert 8 * sum(len(stream[0]) for stream in y_strings) == pytest.approx(estimate["y"], rel=0.04)
    assert 8 * len(z_strings[0]) == pytest.approx(estimate["z"], rel=0.02, abs=96)


@pytest.mark.parametrize("width", [8, 16])
def test_the_first_block_changes_the_memory_format_only_where_onednn_is_safe(width: int) -> None:
    torch.manual_seed(0)
    block = FirstBlock(3, width)
    plain = ResidualBlockWithStride(3, width)
    plain.load_state_dict(block.state_dict())
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(block(images), plain(images))
    assert block(images).is_contiguous(memory_format=torch.channels_last) == (width >= 16)
    assert Cheng2020(STUDENT)(images)["x_hat"].is_contiguous()


def test_heads_divide_the_width() -> None:
    assert [num_heads(width) for width in (8, 32, 48, 64, 104, 192, 320)] == [1, 1, 1, 2, 2, 6, 10]


@pytest.mark.parametrize("blocks_from", [2, 4, 8])
@pytest.mark.parametrize("blocks", [1, 2])
def test_where_residual_blocks_begin_is_told_from_the_weights(blocks_from, blocks):
    size = replace(TEACHER, blocks=blocks, blocks_from=blocks_from)
    net = Cheng2020(size)
    assert size_of(net.state_dict()) == size
    num_stages = {2: 3, 4: 2, 8: 1}[blocks_from]
    plain = [block for block in net.g_a if type(block).__name__ == "ResidualBlock"]
    assert len(plain) == num_stages * blocks
    assert sum(type(block).__name__ == "ResidualBlock" for block in net.g_s) == (num_stages + 1) * blocks
