import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.models import Cheng2020AnchorCheckerboard, MeanScaleHyperprior
from PIL import Image
from skimage import data as photographs
from torch import nn

from distillkit.codec.runtime import ImageCodec
from distillkit.data.images import read_image
from distillkit.errors import BitstreamError, DataError
from distillkit.evaluation.decode import DecodingProcess
from distillkit.evaluation.estimate import estimated_bpp
from distillkit.evaluation.evaluate import evaluate, evaluate_model
from distillkit.evaluation.quality import decibel, ms_ssim, mse01, psnr_db
from distillkit.model.adapters import CodecAdapter, CodecOutput, CompressAIAdapter, fingerprint
from distillkit.model.complexity import kmac_per_pixel, num_parameters
from distillkit.model.file import load_model


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    torch.manual_seed(0)
    module = MeanScaleHyperprior(16, 24)
    adapter = CompressAIAdapter(module)
    adapter.update()
    return ImageCodec(adapter, fingerprint(module))


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    photograph = photographs.astronaut()
    return [
        save(tmp_path / "in/kodak/1.png", photograph[:170, :200]),
        save(tmp_path / "in/clic/1.png", photograph[200:370, 100:290]),
        save(tmp_path / "in/clic/1.bmp", photograph[:50, :70]),
    ]


def test_psnr_of_known_pictures():
    a = np.full((4, 5, 3), 100, np.uint8)
    assert psnr_db(a, a) == math.inf
    assert psnr_db(a, a - 5) == pytest.approx(20 * math.log10(255 / 5))  # unsigned bytes must not wrap round
    b = a.copy()
    b[0, 0, 0] = 160
    assert mse01(a, b) == pytest.approx((60 / 255) ** 2 / 60)
    assert psnr_db(a, b) == psnr_db(b, a) == pytest.approx(10 * math.log10(255**2 / 60))


def test_ms_ssim_of_known_pictures():
    photograph = photographs.astronaut()[:200, :161]
    assert ms_ssim(photograph, photograph) == pytest.approx(1)
    noise = np.random.default_rng(0).normal(0, 20, photograph.shape)
    noisy = np.clip(photograph + noise, 0, 255).astype(np.uint8)
    noisier = np.clip(photograph + 3 * noise, 0, 255).astype(np.uint8)
    assert 0.3 < ms_ssim(photograph, noisier) < ms_ssim(photograph, noisy) < 0.99
    assert ms_ssim(photograph[:160], noisy[:160]) is None


def test_ms_ssim_of_flat_pictures_is_their_luminance_term():
    a, b = (np.full((176, 176, 3), value, np.uint8) for value in (100, 200))
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 200 + c1) / (100**2 + 200**2 + c1)
    assert ms_ssim(a, b) == pytest.approx(luminance**0.1333, abs=1e-3)


def test_decibel():
    assert decibel(0.99) == pytest.approx(20)
    assert decibel(0) == 0
    assert decibel(1.0) == math.inf


@pytest.mark.parametrize("other", [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5, 3))])
def test_pictures_that_do_not_match_are_refused(other):
    for measure in (psnr_db, ms_ssim):
        with pytest.raises(ValueError, match="expected two of uint8 or uint16 and the same shape"):
            measure(np.zeros((4, 5, 3), np.uint8), other)


class TwoConvolutions(CodecAdapter):
    stride = 4

    def __init__(self) -> None:
        self.module = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ConvTranspose2d(8, 3, 4, stride=4))

    def forward(self, images):
        return CodecOutput(self.module(images), {})

    compress = decompress = None


def test_complexity_by_hand():
    adapter = TwoConvolutions()
    assert num_parameters(adapter.module) == (3 * 25 + 1) * 8 + 8 * 16 * 3 + 3
    per_latent = 3 * 25 * 8 + 8 * 16 * 3
    assert kmac_per_pixel(adapter, size=62) == pytest.approx(per_latent / 16 / 1000)


def test_complexity_of_a_real_model_does_not_depend_on_the_size():
    adapter = CompressAIAdapter(Cheng2020AnchorCheckerboard(16))
    small = kmac_per_pixel(adapter, size=64)
    assert small == pytest.approx(kmac_per_pixel(adapter, size=256))
    assert 1 < small < 50


def test_evaluates_real_files(codec, paths, tmp_path):
    out, seen = tmp_path / "out", []
    evaluation = evaluate(codec, paths, out, lmbda=0.013, on_image=seen.append)
    assert [image.name for image in evaluation.images] == ["kodak/1", "clic/1", "clic/1-2"]
    assert tuple(seen) == evaluation.images
    for path, image in zip(paths, evaluation.images, strict=True):
        original, decoded = read_image(path), read_image(out / f"{image.name}.png")
        file = out / f"{image.name}.dk"
        np.testing.assert_array_equal(decoded, codec.decode(file.read_bytes()))
        num_pixels = original.shape[0] * original.shape[1]
        assert (image.height, image.width) == original.shape[:2]
        assert image.source == path
        assert image.file_bytes == len(file.read_bytes())
        assert image.rate_bpp == pytest.approx(image.file_bytes * 8 / num_pixels)
        assert image.psnr_db == psnr_db(original, decoded)
        mse = np.mean((original / 255.0 - decoded / 255.0) ** 2)
        assert image.rd_cost == pytest.approx(0.013 * 255**2 * mse + image.rate_bpp)
        assert image.encode_seconds > 0
        assert image.decode_seconds > 0
        assert image.ms_ssim_db == (None if image.ms_ssim is None else decibel(image.ms_ssim))
    assert evaluation.decoded_in == "same"
    assert [image.ms_ssim is None for image in evaluation.images] == [False, False, True]


def test_averages_are_per_image(codec, paths, tmp_path):
    evaluation = evaluate(codec, paths, tmp_path / "out", lmbda=0.013)
    for name in ("rate_bpp", "psnr_db", "rd_cost", "encode_seconds", "decode_seconds"):
        assert evaluation.averages[name] == pytest.approx(sum(getattr(i, name) for i in evaluation.images) / 3)
    assert evaluation.averages["ms_ssim"] is None
    large = evaluate(codec, paths[:2], tmp_path / "large", lmbda=None)
    assert large.averages["ms_ssim"] == pytest.approx(sum(i.ms_ssim for i in large.images) / 2)
    assert large.averages["ms_ssim_db"] == decibel(large.averages["ms_ssim"])
    assert large.averages["rd_cost"] is None


def test_results_file(codec, paths, tmp_path):
    evaluation = evaluate(codec, paths, tmp_path / "out", lmbda=0.013)
    text = (tmp_path / "out/results.json").read_text(encoding="utf-8")
    assert text == evaluation.to_json()
    content = json.loads(text)
    assert content["fingerprint"] == codec.fingerprint
    assert content["lmbda"] == 0.013
    assert content["averages"] == evaluation.averages
    assert content["images"][1]["source"] == paths[1].as_posix()
    assert content["images"][1]["rate_bpp"] == evaluation.images[1].rate_bpp
    # CompressAI's format: a list a measure; a measure that a picture lacks is left out
    assert content["name"] == "out"
    assert content["results"]["bpp"] == [evaluation.averages["rate_bpp"]]
    assert content["results"]["psnr-rgb"] == [evaluation.averages["psnr_db"]]
    assert "ms-ssim-rgb" not in content["results"]
    assert content["environment"]["torch"] == torch.__version__
    rows = list(csv.DictReader((tmp_path / "out/images.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["kodak/1", "clic/1", "clic/1-2"]
    assert [float(row["psnr_db"]) for row in rows] == [image.psnr_db for image in evaluation.images]
    assert (rows[0]["ms_ssim"] != "", rows[2]["ms_ssim"]) == (True, "")


def test_the_estimate_is_what_the_likelihoods_say(codec, paths):
    picture = read_image(paths[0])  # 170x200: padded to 192x256
    batch = torch.nn.functional.pad(
        torch.from_numpy(picture / 255.0).permute(2, 0, 1)[None].float(), (0, 56, 0, 22), mode="replicate"
    )
    with torch.no_grad():
        likelihoods = codec.adapter.module(batch.contiguous())["likelihoods"]
    bits = sum(-float(values.log2().sum()) for values in likelihoods.values())
    assert estimated_bpp(codec.adapter, picture) == pytest.approx(bits / (170 * 200), rel=1e-4)
    assert estimated_bpp(codec.adapter, np.broadcast_to(picture[:1, :1], (4001, 4000, 3))) is None


def test_the_estimate_is_near_the_file(codec, paths, tmp_path):
    (image,) = evaluate(codec, paths[:1], tmp_path / "out", lmbda=None).images
    header = 8 * 60 / (170 * 200)
    assert image.estimated_bpp < image.rate_bpp < 1.05 * image.estimated_bpp + header


def test_a_model_is_decoded_in_a_fresh_process(teacher_file, plugins, paths, tmp_path, monkeypatch):
    seen = []
    original = ImageCodec.decode
    monkeypatch.setattr(ImageCodec, "decode", lambda *_: pytest.fail("decoded in the process that encoded"))
    evaluation = evaluate_model(teacher_file, paths, tmp_path / "out", plugins=plugins, on_image=seen.append)
    monkeypatch.setattr(ImageCodec, "decode", original)
    model = load_model(teacher_file, plugins)
    codec = ImageCodec(model.codec, model.fingerprint)
    assert (evaluation.decoded_in, evaluation.lmbda) == ("fresh", 0.013)
    assert tuple(seen) == evaluation.images
    for image in evaluation.images:
        decoded = read_image(tmp_path / "out" / f"{image.name}.png")
        np.testing.assert_array_equal(decoded, codec.decode((tmp_path / "out" / f"{image.name}.dk").read_bytes()))
        assert image.psnr_db == psnr_db(read_image(image.source), decoded)
        assert 0 < image.decode_seconds < 60


@pytest.mark.slow
def test_what_goes_wrong_in_the_process_is_said_and_it_goes_on(teacher_file, plugins, paths, tmp_path, monkeypatch):
    with DecodingProcess() as process:
        decode = process.decoder(teacher_file, load_model(teacher_file, plugins), plugins)
        (tmp_path / "junk.dk").write_bytes(b"junk")
        with pytest.raises(BitstreamError, match="compressed file"):
            list(decode([(tmp_path / "junk.dk", tmp_path / "junk.png")]))
        used = process._process.pid
        result = evaluate_model(teacher_file, paths[2:], tmp_path / "out", plugins=plugins, process=process)
        assert result.decoded_in == "fresh"
        assert process._process.pid == used
        file = (tmp_path / "out" / "1.dk", tmp_path / "out" / "1.png")
        half = decode([file, file])
        assert next(half) > 0
        half.close()  # left in the middle: answers that are on their way must not reach the next
        assert process._process is None
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(BitstreamError, match="but it ended with code 1 .no message"):
            list(decode([file]))


def test_a_pair_that_no_module_holds_is_decoded_here(teacher_file, paths, tmp_path):
    from distillkit import load_plugins
    from tests import small_pair

    held = load_plugins(small=type("Small", (), {"register_pairs": staticmethod(small_pair.register_pairs)})())
    assert evaluate_model(teacher_file, paths[2:], tmp_path / "out", plugins=held).decoded_in == "same"


def test_a_folder_that_cannot_be_made_is_said(codec, paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out: cannot be made: .*; choose another folder"):
        evaluate(codec, paths, tmp_path / "file" / "out", 0.013)


def test_originals_are_never_overwritten(codec, paths):
    before = paths[0].read_bytes()
    with pytest.raises(DataError, match=r"1\.png is an original and would be overwritten"):
        evaluate(codec, paths[:1], paths[0].parent, lmbda=None)
    assert paths[0].read_bytes() == before


def test_no_pictures_is_an_error(codec, tmp_path):
    with pytest.raises(DataError, match="expected at least one picture"):
        evaluate(codec, [], tmp_path, lmbda=None)
