"""Contexts and the wavefront against the convolutions and loops that they stand for."""

import pytest
import torch
from compressai.latent_codecs.rasterscan import raster_scan_compress_single_stream
from compressai.layers import CheckerboardMaskedConv2d, MaskedConv2d
from torch import nn
from torch.nn import functional as F

from distillkit.codec.fast.checkerboard import Checkerboard
from distillkit.codec.fast.context import MaskedContext, sees_only
from distillkit.codec.fast.wavefront import Wavefront, code_serial_contexts
from distillkit.codec.stopwatch import Stopwatch
from distillkit.codec.tables import EntropyWatch
from tests.lively import adapter, coder, picture


def masked(kind, kernel, bias=True):
    torch.manual_seed(kernel)
    layer = kind(3, 5, kernel, padding=kernel // 2, bias=bias).double()
    layer.weight.data *= layer.mask
    return layer.requires_grad_(False)


@pytest.mark.parametrize("kind", [MaskedConv2d, CheckerboardMaskedConv2d])
@pytest.mark.parametrize(("kernel", "bias"), [(3, True), (5, True), (7, False)])
def test_masked_context_is_the_convolution_at_chosen_positions(kind, kernel, bias):
    layer, latent = masked(kind, kernel, bias), torch.randn(1, 3, 6, 9, dtype=torch.float64)
    context = MaskedContext(layer)
    margin = kernel // 2
    padded = F.pad(latent, [margin] * 4)[0].permute(1, 2, 0).flatten(0, 1)
    rows, columns = torch.tensor([0, 5, 3, 2]), torch.tensor([0, 8, 4, 0])
    got = context(padded, context.windows(rows, columns, 9))
    torch.testing.assert_close(got, layer(latent)[0][:, rows, columns].t())


@pytest.mark.parametrize("kind", ["checkerboard", "wide-parameters", "odd"])
@pytest.mark.parametrize("size", [(2, 2), (1, 8), (6, 4), (5, 10)])
@torch.no_grad()
def test_the_checkerboard_gives_what_compressais_own_gives(kind, size):
    """Both in float64: the same symbols, and the same latents but for the order of sums."""
    torch.manual_seed(1)
    owner = adapter("checkerboard").module.double().latent_codec.y
    if kind == "odd":
        owner.anchor_parity, owner.non_anchor_parity = "odd", "even"
    channels = owner.context_prediction.in_channels
    if kind == "wide-parameters":  # whose first layer cannot be split
        inputs = owner.entropy_parameters[0].in_channels
        owner.entropy_parameters = nn.Sequential(nn.Conv2d(inputs, 2 * channels, 3, padding=1)).double()
    model = owner.latent_codec["y"].gaussian_conditional
    hyper = torch.randn(
        1, owner.entropy_parameters[0].in_channels - owner.context_prediction.out_channels, *size
    ).double()
    y = 3 * torch.randn(1, channels, *size, dtype=torch.float64)
    plain = owner.compress(y, hyper)
    coding = Checkerboard(owner, model, EntropyWatch(owner, Stopwatch()).tables[model])
    data, y_hat = coding.encode(y, hyper)
    torch.testing.assert_close(y_hat, plain["y_hat"], rtol=0, atol=1e-6)
    assert torch.equal(coding.decode(data, hyper), y_hat)
    assert (y - y_hat).abs().max() < 0.5 + 1e-6
    # The context counts: without it the second half has other means.
    owner.context_prediction.weight.zero_()
    other = Checkerboard(owner, model, coding._tables).encode(y, hyper)[1]
    assert not torch.allclose(other, y_hat)


def test_what_a_mask_sees():
    before, checkerboard = (
        (lambda row, column, margin: row < 0 or (row == 0 and column < 0)),
        masked(CheckerboardMaskedConv2d, 5),
    )
    assert sees_only(masked(MaskedConv2d, 5), before)
    assert not sees_only(checkerboard, before)
    assert sees_only(checkerboard, lambda row, column, _: (row + column) % 2 == 1)
    assert not sees_only(nn.Conv2d(3, 5, 5), before)
    uneven = masked(MaskedConv2d, 5)
    uneven.mask[0, 0, 0, 0] = 0  # another mask for one channel
    assert not sees_only(uneven, before)


def prepared(kind):
    """Return a serial codec's owner in float64, its own coding intact, and the wavefront for it."""
    module = adapter(kind).module.double()
    owner = module if kind == "serial" else module.latent_codec.y
    return owner, Wavefront(owner, EntropyWatch(module, Stopwatch()).tables[owner.gaussian_conditional])


@pytest.mark.parametrize("kind", ["serial", "raster-scan"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 9)])
@torch.no_grad()
def test_the_wavefront_gives_what_position_by_position_gives(kind, size):
    owner, wavefront = prepared(kind)
    torch.manual_seed(1)
    y = 3 * torch.randn(1, 16, *size, dtype=torch.float64)
    params = torch.randn(1, 32, *size, dtype=torch.float64)
    data, y_hat = wavefront.encode(y, params)
    serial = F.pad(y, [2] * 4)
    if kind == "serial":
        owner._compress_ar(serial, params, *size, 5, 2)  # it puts what the decoder sees in the latent's place
        serial = serial[..., 2:-2, 2:-2]
    else:
        serial = raster_scan_compress_single_stream(
            encoder=_Nowhere(), y=y, params=params, gaussian_conditional=owner.gaussian_conditional,
            entropy_parameters=owner.entropy_parameters, context_prediction=owner.context_prediction,
            height=size[0], width=size[1], padding=2, kernel_size=5,
        )  # fmt: skip
    assert (y - y_hat).abs().max() < 0.5 + 1e-6
    assert torch.equal(y_hat.float(), serial.float())  # to the bit of what is handed to the synthesis
    torch.testing.assert_close(wavefront.decode(data, params, 16), y_hat, rtol=0, atol=0)


@torch.no_grad()
def test_raster_order_gives_the_wavefronts_latents_to_the_bit():
    """The same arithmetic, position after position."""
    owner, wavefront = prepared("serial")
    torch.manual_seed(1)
    y, params = 3 * torch.randn(1, 16, 9, 12).double(), torch.randn(1, 32, 9, 12).double()
    y_hat = wavefront.encode(y, params)[1]
    raster = F.pad(torch.zeros_like(y), [2] * 4)
    for row in range(9):
        for column in range(12):
            window = raster[:, :, row : row + 5, column : column + 5]
            context = F.conv2d(window, owner.context_prediction.weight, owner.context_prediction.bias)
            place = (..., slice(row, row + 1), slice(column, column + 1))
            _, means = owner.entropy_parameters(torch.cat((params[place], context), 1)).chunk(2, 1)
            raster[:, :, row + 2, column + 2] = (torch.round(y[place] - means) + means)[..., 0, 0]
    assert torch.equal(raster[..., 2:-2, 2:-2].float(), y_hat.float())


@torch.no_grad()
def test_the_decoder_gives_what_compressais_own_gives_in_double():
    """Whole codecs by real bytes: latents to the bit, pixels but for the rounding of a synthesis in float32."""
    codec = coder("serial", precision="fp32")
    kept = {}
    module = codec._coder.adapter.module
    module.g_a.register_forward_hook(lambda _, args, out: kept.__setitem__("y", out))
    module.g_s.register_forward_pre_hook(lambda _, args: kept.__setitem__("ours", args[0].float()))
    pixels = codec.decode(codec.encode(picture(128, 192)))
    double = adapter("serial").module.double()
    double.g_a.register_forward_hook(lambda *_: kept["y"])
    double.g_s.register_forward_pre_hook(lambda _, args: kept.__setitem__("theirs", args[0].float()))
    torch.set_default_dtype(torch.float64)  # CompressAI collects what it decodes in a tensor of this
    try:
        coded = double.compress(torch.zeros(1, 3, 128, 192))
        theirs = double.decompress(coded["strings"], coded["shape"])["x_hat"]
    finally:
        torch.set_default_dtype(torch.float32)
    assert kept["ours"].count_nonzero() > 1000
    assert torch.equal(kept["ours"], kept["theirs"])
    difference = abs(theirs[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy() - pixels)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


class _Nowhere:
    def encode_with_indexes(self, *_):
        pass


@pytest.mark.parametrize(
    ("kind", "replaced"),
    [("serial", ["_compress_ar", "_decompress_ar"]), ("raster-scan", ["compress", "decompress"]), ("checkerboard", [])],
)
def test_only_serial_contexts_are_replaced(kind, replaced):
    module = adapter(kind).module
    code_serial_contexts(module, EntropyWatch(module, Stopwatch()))
    owners = [part for part in module.modules() if "context_prediction" in dict(part.named_children())]
    assert [sorted({"_compress_ar", "_decompress_ar", "compress", "decompress"} & set(vars(o))) for o in owners] == [
        replaced
    ]
