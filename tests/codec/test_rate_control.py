"""Files of codecs of many rates: exact at every quality, and at the rate or the PSNR that was asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import distillkit
from distillkit.cli.app import app
from distillkit.codec.bitstream import read
from distillkit.codec.rate_control import Wanted, encode_as_wanted, psnr_db, search
from distillkit.model.adapters import fingerprint


def trained_like(codec):
    """Give an untrained codec latents of several steps, and a synthesis that undoes the analysis a little."""
    with torch.no_grad():
        codec.module.g_a[-1].weight.mul_(60)
    codec.module.eval()
    codec.update()
    return codec


@pytest.fixture(scope="module")
def codec():
    from compressai.models import MeanScaleHyperprior

    torch.manual_seed(0)
    gained = trained_like(distillkit.GainedCodec(MeanScaleHyperprior(8, 12)))
    return distillkit.ImageCodec(gained, fingerprint(gained.module))


@pytest.fixture(scope="module")
def picture(photographs):
    return np.asarray(Image.open(sorted(photographs.iterdir())[0]).convert("RGB"))


@pytest.mark.parametrize("quality", [0.0, 0.123456, 0.5, 1.0])
def test_the_file_tells_its_quality_and_decodes_to_what_was_encoded(codec, picture, quality):
    data = codec.encode(picture, quality)
    assert read(data).quality == pytest.approx(quality, abs=1 / 65535)
    fresh = distillkit.ImageCodec(codec.adapter, codec.fingerprint)
    assert np.array_equal(fresh.decode(data), codec.decode(data))
    with torch.no_grad():
        images = torch.from_numpy(np.pad(picture, ((0, 32), (0, 0), (0, 0)), "edge")).permute(2, 0, 1)[None] / 255
        exact = codec.adapter.forward(images.contiguous(), read(data).quality).x_hat
    pixels = (exact[0, :, : len(picture)].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels - codec.decode(data)).mean() < 1


def test_rates_rise_with_the_quality(codec, picture):
    sizes = [len(codec.encode(picture, quality)) for quality in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.3 * sizes[0]


def saturated():
    """A codec whose latents are all 0 at quality 0, and at quality 1 a thousand times finer: far beyond the tables."""
    from compressai.models import MeanScaleHyperprior

    torch.manual_seed(0)
    gained = trained_like(distillkit.GainedCodec(MeanScaleHyperprior(8, 12), num_levels=2))
    with torch.no_grad():
        gained.module.gain.y[0] -= 12
        gained.module.gain.z[0] -= 12
        gained.module.gain.y[1] += 7
        gained.module.gain.y_inverse[1] -= 7
        gained.module.gain.z[1] += 4
    return gained


def test_latents_that_saturate_at_the_ends_make_files_of_what_they_are(picture):
    gained = saturated()
    codec = distillkit.ImageCodec(gained, fingerprint(gained.module))
    low, high = codec.encode(picture, 0.0), codec.encode(picture, 1.0)
    assert len(low) < 500  # nothing but zeros
    assert len(high) > 10 * len(low)
    images = torch.from_numpy(np.pad(picture, ((0, 32), (0, 0), (0, 0)), "edge")).permute(2, 0, 1)[None] / 255
    for data, quality in ((low, 0.0), (high, 1.0)):  # the entropy hash is checked, too
        with torch.no_grad():
            exact = gained.forward(images.contiguous(), quality).x_hat
        pixels = (exact[0, :, : len(picture)].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(pixels - codec.decode(data)).mean() < 1
    many = encode_as_wanted(codec, picture, Wanted("bpp", 1e-5))  # less than the low end has
    assert (many.quality, many.data) == (0.0, low)


@pytest.mark.parametrize("quality", [0.0, 1.0, [0.0, 1.0]])
def test_latents_that_saturate_at_the_ends_train_with_finite_gradients(quality):
    gained = saturated()
    gained.module.train()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    output = gained.forward(images, torch.tensor(quality))
    distillkit.rate_distortion(output, images, 0.01).cost.backward()
    assert all(bool(p.grad.isfinite().all()) for p in gained.module.parameters() if p.grad is not None)
    assert gained.module.gain.y_inverse.grad.abs().sum() > 0


def test_one_set_of_tables_holds_at_every_quality(picture):
    """Quantiles that the auxiliary loss has fitted: no file is longer than estimated."""
    from compressai.models import MeanScaleHyperprior

    from distillkit.evaluation.estimate import estimated_bpp
    from distillkit.model.conditioned import at_quality

    torch.manual_seed(0)
    gained = trained_like(distillkit.GainedCodec(MeanScaleHyperprior(8, 12), num_levels=2))
    with torch.no_grad():
        gained.module.h_a[-1].weight.mul_(30)
        gained.module.gain.z[1] += 2
        for quantiles in gained.quantile_parameters():
            quantiles.add_(5)
    optimizer = torch.optim.Adam(gained.quantile_parameters(), 0.05)
    before = float(gained.aux_loss().detach())
    for _ in range(600):
        optimizer.zero_grad()
        gained.aux_loss().backward()
        optimizer.step()
    assert float(gained.aux_loss().detach()) < before / 5
    gained.update()
    codec = distillkit.ImageCodec(gained, fingerprint(gained.module), precision="fp32")
    for quality in (0.0, 0.3, 1.0):
        estimate = estimated_bpp(at_quality(gained, quality), picture)
        data = codec.encode(picture, quality)
        assert 8 * (len(data) - 60) / picture[..., 0].size < 1.1 * estimate  # hardly anything is escaped
        assert codec.decode(data).shape == picture.shape


@pytest.mark.slow
def test_a_sweep_is_a_curve_of_one_file(model, photographs, tmp_path):
    """`compare` measures at five qualities, each at its own lambda."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(sorted(photographs.iterdir())[0].read_bytes())
    result, _ = run("compare", model, "--data", data, "--out", tmp_path / "compared")
    assert result.exit_code == 0, result.output
    rows = [json.loads(path.read_text()) for path in (tmp_path / "compared").rglob("results.json")]
    rows.sort(key=lambda row: row["quality"])
    assert [row["quality"] for row in rows] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [row["lmbda"] for row in rows] == pytest.approx([0.002 * 16**q for q in (0, 0.25, 0.5, 0.75, 1)])
    rates = [row["averages"]["rate_bpp"] for row in rows]
    assert rates == sorted(set(rates))


def test_a_file_needs_a_model_of_its_kind(codec, picture):
    from compressai.models import MeanScaleHyperprior

    plain = distillkit.CompressAIAdapter(MeanScaleHyperprior(8, 12).eval())
    plain.update()
    single = distillkit.ImageCodec(plain, codec.fingerprint)
    with pytest.raises(distillkit.PairError, match="expected a quality from 0 to 1, got none"):
        codec.encode(picture)
    with pytest.raises(distillkit.PairError, match="from 0 to 1, got 1.5"):
        codec.encode(picture, 1.5)
    with pytest.raises(distillkit.PairError, match="has a single rate"):
        single.encode(picture, 0.5)


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior-vbr", "mbt2018-mean-vbr", "mbt2018-vbr"])
def test_compressais_codecs_make_files(picture, name):
    pair_class = distillkit.load_plugins().components["pair"]["models.compressai"]
    torch.manual_seed(0)
    options = {"student": {"architecture": name, "N": 8, "M": 12}}
    adapter = trained_like(pair_class(pair_class.Config.model_validate(options)).build_student())
    codec = distillkit.ImageCodec(adapter, fingerprint(adapter.module))
    assert codec.is_fast, codec.note
    small, large = (codec.encode(picture[:64, :64], quality) for quality in (0.0, 1.0))
    assert len(small) < len(large)
    fresh = distillkit.ImageCodec(adapter, codec.fingerprint)
    assert np.array_equal(fresh.decode(large), codec.decode(large))


def test_tables_that_follow_from_the_quality_make_files(picture):
    pair_class = distillkit.load_plugins().components["pair"]["models.compressai"]
    torch.manual_seed(0)
    options = {"student": {"architecture": "mbt2018-mean-vbr", "N": 8, "M": 12, "vr_entbttlnck": True}}
    adapter = trained_like(pair_class(pair_class.Config.model_validate(options)).build_student())
    codec = distillkit.ImageCodec(adapter, fingerprint(adapter.module))
    for quality in (0.0, 1.0):
        data = codec.encode(picture[:64, :64], quality)
        assert codec.decode(data).shape == (64, 64, 3)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_rate_control_comes_within_two_percent(codec, picture, share):
    low, high = (8 * len(codec.encode(picture, q)) / picture[..., 0].size for q in (0.0, 1.0))
    wanted = low + share * (high - low)
    done = encode_as_wanted(codec, picture, Wanted("bpp", wanted))
    assert done.value == 8 * len(done.data) / picture[..., 0].size
    assert done.value == pytest.approx(wanted, rel=0.02)
    assert read(done.data).quality == pytest.approx(done.quality, abs=1e-5)
    assert done.tries <= 16


def test_a_quality_is_searched_for(codec, picture):
    found = [psnr_db(picture, codec.decode(codec.encode(picture, q))) for q in (0.0, 1.0)]
    wanted = sum(found) / 2
    done = encode_as_wanted(codec, picture, Wanted("psnr", wanted))
    assert done.value == psnr_db(picture, codec.decode(done.data))
    assert abs(done.value - wanted) <= max(0.02, abs(found[1] - found[0]) / 2)


@settings(deadline=None)
@given(st.floats(0.01, 5), st.floats(0.5, 6), st.floats(0, 1))
def test_the_search_on_rising_curves(low, growth, place):
    calls = []

    def value_at(quality):
        calls.append(quality)
        return low * np.exp(growth * quality)

    wanted = value_at(place)
    calls.clear()
    quality = search(value_at, wanted, 0.005 * wanted)
    assert value_at(quality) == pytest.approx(wanted, rel=0.005)
    assert len(calls) <= 17


def test_out_of_reach_gives_the_nearer_end():
    assert search(lambda quality: 1 + quality, 3.0, 0.01) == 1.0
    assert search(lambda quality: 1 + quality, 0.5, 0.01) == 0.0


@pytest.mark.parametrize("wanted", [("quality", 1.1), ("bpp", 0.0), ("psnr", float("inf")), ("bpp", float("nan"))])
def test_nothing_to_want(wanted):
    with pytest.raises(distillkit.PairError, match="expected a number"):
        Wanted(*wanted)


@pytest.fixture(scope="module")
def model(tmp_path_factory, codec):
    from distillkit.model.file import save_model
    from distillkit.model.lmbda import LmbdaRange

    pair_class = distillkit.load_plugins().components["pair"]["models.compressai"]
    options = {"student": {"architecture": "mbt2018-mean", "N": 8, "M": 12, "gain_units": 6}}
    gained = pair_class(pair_class.Config.model_validate(options)).build_student()
    gained.module.load_state_dict(codec.adapter.module.state_dict())
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, gained, "models.compressai", options, "student", LmbdaRange(0.002, 0.032))
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result, json.loads(result.stdout) if result.exit_code == 0 and "--json" in arguments else None


def test_the_command_line(model, photographs, tmp_path, picture):
    source = sorted(photographs.iterdir())[0]
    _, (at_quality,) = run("compress", source, tmp_path / "a.dk", "--model", model, "--quality", 0.4, "--json")
    assert at_quality["quality"] == at_quality["reached"] == 0.4
    bpp = 8 * at_quality["compressed_bytes"] / picture[..., 0].size
    _, (at_rate,) = run("compress", source, tmp_path / "b.dk", "--model", model, "--bpp", bpp, "--json")
    assert at_rate["reached"] == pytest.approx(bpp, rel=0.02)
    result, _ = run("compress", source, tmp_path / "c.dk", "--model", model, "--psnr", 99)
    assert "psnr 99 dB: reached" in result.stderr
    assert "at quality 1" in result.stderr
    result, _ = run("decompress", tmp_path / "b.dk", tmp_path / "b.png", "--model", model)
    assert result.exit_code == 0
    with Image.open(tmp_path / "b.png") as decoded:
        assert decoded.size == picture.shape[1::-1]


def test_the_command_line_says_what_is_missing(model, photographs, tmp_path):
    source = sorted(photographs.iterdir())[0]
    result, _ = run("compress", source, tmp_path / "a.dk", "--model", model)
    assert result.exit_code == 2
    assert "it has many rates; expected a quality" in result.stderr
    result, _ = run("compress", source, tmp_path / "a.dk", "--model", model, "--quality", 0.4, "--bpp", 1)
    assert "expected one of --quality, --bpp" in str(result.exception)
    result, _ = run("compress", source, tmp_path / "a.dk", "--model", "zoo:lite-student", "--bpp", 1)
    assert "has a single rate" in result.stderr
