import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from compressai.models import Cheng2020AnchorCheckerboard, MeanScaleHyperprior
from skimage import data as photographs
from torch import Tensor, nn

from distillkit.codec.bitstream import read, write
from distillkit.codec.runtime import ImageCodec
from distillkit.errors import BitstreamError, PairError
from distillkit.model.adapters import CodecAdapter, CodecOutput, CompressAIAdapter, CompressedLatents, fingerprint


def build(kind: str) -> ImageCodec:
    torch.manual_seed(0)
    module = MeanScaleHyperprior(16, 24) if kind == "hyperprior" else Cheng2020AnchorCheckerboard(16)
    adapter = CompressAIAdapter(module)
    adapter.update()
    return ImageCodec(adapter, fingerprint(module), precision="fp32")


@pytest.fixture(scope="module", params=["hyperprior", "checkerboard"])
def codec(request) -> ImageCodec:
    return build(request.param)


def photograph(height: int, width: int) -> np.ndarray:
    return photographs.astronaut()[100 : 100 + height, 150 : 150 + width]


@pytest.mark.parametrize("size", [(64, 64), (100, 150), (65, 1), (1, 1), (3, 200), (128, 64)])
def test_decodes_what_the_model_decodes(codec, size):
    """Padding, file, coder and arithmetic change nothing but rounding against the model called by hand."""
    height, width = size
    image = photograph(height, width)
    decoded = codec.decode(codec.encode(image))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous

    bottom, right = -height % 64, -width % 64
    padded = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge").astype(np.float32) / 255
    module = codec.adapter.module.eval()
    with torch.no_grad():
        batch = torch.from_numpy(padded).permute(2, 0, 1)[None].contiguous()
        coded = module.compress(batch)
        x_hat = module.decompress(coded["strings"], coded["shape"])["x_hat"]
    expected = (x_hat[0, :, :height, :width].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert abs(decoded - expected).max() <= 1
    assert (decoded != expected).mean() < 0.002


def test_file_holds_size_and_fingerprint(codec):
    image = read(codec.encode(photograph(70, 130)))
    assert (image.height, image.width) == (70, 130)
    assert image.fingerprint.hex() == codec.fingerprint[:16]


def test_runs_in_eval_mode_and_float32_whatever_is_around_it(codec):
    image = photograph(64, 64)
    expected = codec.encode(image)
    codec.adapter.module.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert codec.encode(image) == expected
        np.testing.assert_array_equal(codec.decode(expected), codec.decode(codec.encode(image)))
    assert codec.adapter.module.training  # the caller's own is left alone


def test_refuses_files_of_another_model(codec):
    data = codec.encode(photograph(64, 64))
    other = build("hyperprior")
    other.adapter.module.h_s[0].weight.data.add_(1)
    other = ImageCodec(other.adapter, fingerprint(other.adapter.module))
    with pytest.raises(BitstreamError, match="decode it with the model that wrote it"):
        other.decode(data)


def test_a_model_that_shares_the_entropy_path_decodes_the_file(codec):
    data = codec.encode(photograph(64, 64))
    other = build("hyperprior" if type(codec.adapter.module) is MeanScaleHyperprior else "checkerboard")
    for part in ("g_a", "g_s"):
        next(iter(getattr(other.adapter.module, part).parameters())).data.mul_(1.1)
    other = ImageCodec(other.adapter, fingerprint(other.adapter.module), precision="fp32")
    assert other.fingerprint != codec.fingerprint
    assert (other.decode(data) != codec.decode(data)).any()  # its own synthesis


def test_refuses_another_number_of_substreams(codec):
    image = read(codec.encode(photograph(64, 64)))
    with pytest.raises(BitstreamError, match=r"expected \d substreams, as codec .* writes, got \d"):
        codec.decode(write(replace(image, substreams=(*image.substreams, b""))))


def test_damaged_files_never_reach_the_decoder(codec):
    rng = random.Random(0)
    data = codec.encode(photograph(64, 128))
    for _ in range(2000):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= rng.randint(1, 255)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(data)) :]
        with pytest.raises(BitstreamError):
            codec.decode(bytes(damaged))


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_refuses_what_is_no_image(codec, image):
    with pytest.raises(ValueError, match="expected uint8 of shape"):
        codec.encode(image)


def test_forgotten_update_is_a_clear_error():
    with pytest.raises(PairError, match=r"call adapter.update\(\) first"):
        ImageCodec(CompressAIAdapter(MeanScaleHyperprior(16, 24)), "0" * 32)


@pytest.mark.parametrize("value", ["", "0123", "x" * 32])
def test_refuses_a_fingerprint_that_is_none(codec, value):
    with pytest.raises(PairError, match="at least 16 hexadecimal digits"):
        ImageCodec(codec.adapter, value)


class RawCodec(CodecAdapter):
    """Codes an image as its 8-bit samples; `shape_of` and `num_strings` are functions of height and width in pixels."""

    stride = 8

    def __init__(self, shape_of: Any, num_strings: Any = lambda height, width: 1) -> None:
        self.module = nn.Identity()
        self.shape_of = shape_of
        self.num_strings = num_strings
        self.decoded_shape: Any = None
        self.kept: list[Tensor] = []

    def forward(self, images: Tensor) -> CodecOutput:
        return CodecOutput(images, {})

    def compress(self, images: Tensor) -> CompressedLatents:
        height, width = images.shape[2:]
        self.kept.append(images + 0)
        samples = images.mul(255).round().to(torch.uint8).numpy().tobytes()
        strings = [[samples]] + [[b""]] * (self.num_strings(height, width) - 1)
        return CompressedLatents(strings, self.shape_of(height, width))

    def decompress(self, latents: CompressedLatents) -> Tensor:
        self.decoded_shape = latents.shape
        height, width = latents.shape["y"][1:]
        samples = np.frombuffer(latents.strings[0][0], np.uint8).reshape(1, 3, 2 * height, 2 * width)
        return torch.from_numpy(samples.astype(np.float32)) / 255


def test_a_lossless_codec_gives_back_every_pixel():
    codec = ImageCodec(RawCodec(lambda h, w: {"y": torch.Size([3, h // 2, w // 2])}), "0" * 16)
    for size in [(64, 64), (37, 90), (1, 3)]:
        image = photograph(*size)
        np.testing.assert_array_equal(codec.decode(codec.encode(image)), image)


def test_tensors_that_a_codec_keeps_can_be_trained_with():
    adapter = RawCodec(lambda h, w: {"y": (3, h // 2, w // 2)})
    ImageCodec(adapter, "0" * 16).encode(photograph(8, 8))
    weight = torch.ones((), requires_grad=True)
    (weight * adapter.kept[-1]).sum().backward()
    assert weight.grad == adapter.kept[-1].sum()


def test_any_nesting_is_rebuilt():
    def shape(height: int, width: int) -> Any:
        return {"y": torch.Size([3, height // 2, width // 2]), "z": [(width // 8, height // 8), {"n": 5, "none": ()}]}

    adapter = RawCodec(shape)
    codec = ImageCodec(adapter, "0" * 16)
    codec.decode(codec.encode(photograph(33, 55)))
    assert adapter.decoded_shape == shape(40, 56)
    assert type(adapter.decoded_shape["y"]) is torch.Size
    assert type(adapter.decoded_shape["z"]) is list
    assert type(adapter.decoded_shape["z"][0]) is tuple


@pytest.mark.parametrize(
    ("shape_of", "where"),
    [
        (lambda h, w: (h * w,), r"shape\[0\]"),
        (lambda h, w: {"y": [h // 8 + 1]}, r"shape\['y'\]\[0\]"),
        (lambda h, w: (h / 8,), r"shape\[0\]"),
        (lambda h, w: (1,) * (h // 8), "shape"),
        (lambda h, w: {f"y{h}": 1}, "shape"),
    ],
)
def test_shapes_that_do_not_follow_from_the_size_are_refused(shape_of, where):
    with pytest.raises(PairError, match=f"codec Identity: {where}: expected ints that are constant or proportional"):
        ImageCodec(RawCodec(shape_of), "0" * 16)


def test_a_number_of_substreams_that_varies_is_refused():
    with pytest.raises(PairError, match="expected 1 substreams of one string"):
        ImageCodec(RawCodec(lambda h, w: (1,), lambda h, w: h // 8), "0" * 16)


def test_a_shape_that_leaves_its_rule_later_is_refused_when_encoding():
    codec = ImageCodec(RawCodec(lambda h, w: {"y": (3, min(h, 32) // 2, w // 2)}), "0" * 16)
    codec.encode(photograph(32, 32))
    with pytest.raises(PairError, match="its shape must follow from the padded image's size alone"):
        codec.encode(photograph(40, 32))
