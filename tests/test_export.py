"""Exports: what one writes the other decodes, in a process without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import distillkit
from distillkit.adapters import as_codec, fingerprint
from distillkit.errors import DistillkitError, PairError
from distillkit.export.exact import in_float64
from distillkit.export.export import export_model
from distillkit.export.parts import take_apart

NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "distillkit", "compressai"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["run.py", *sys.argv[1:]]
exec(compile(open("run.py").read(), "run.py", "exec"))
"""


def compressai_codec(flow):
    from compressai import models

    torch.manual_seed(0)
    architectures = {
        "factorized": models.FactorizedPrior,
        "scale": models.ScaleHyperprior,
        "mean-scale": models.MeanScaleHyperprior,
        "serial": models.JointAutoregressiveHierarchicalPriors,
    }
    return architectures[flow](12, 16)


def checkerboard():
    torch.manual_seed(0)
    pair = distillkit.load_plugins().get("pair", "models.cheng2020", "test")
    return pair(pair.Config(size="tiny")).build_student()


def lively(module):
    """Make random weights spread the latent over several symbols, and its scales over several tables."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("g_a") and name.endswith("weight") and parameter.ndim == 4:
                parameter.mul_(2.0)
            if "h_s" in name and name.endswith("weight"):
                parameter.mul_(3.0)
    return module


def trained(module, name="none"):
    codec = as_codec(lively(module).eval())
    codec.update()
    return distillkit.TrainedModel(codec, name, {}, "student", 0.013, fingerprint(codec.module))


def picture(height=100, width=150):
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(0)
    waves = np.stack([128 + 70 * np.sin(x / (9 + c)) + 50 * np.cos(y / (7 + c)) for c in range(3)], 2)
    return (waves + random.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("flow", ["factorized", "scale", "mean-scale", "checkerboard"])
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_files_go_both_ways(flow, to, tmp_path):
    for package in ("onnxscript", "onnxruntime", *(["openvino"] if to == "openvino" else [])):
        pytest.importorskip(package)
    model = trained(checkerboard() if flow == "checkerboard" else compressai_codec(flow))
    out = tmp_path / "export"
    export_model(model, to, out)
    assert json.loads((out / "codec.json").read_text())["flow"] == flow
    ours = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    Image.fromarray(picture()).save(tmp_path / "photo.png")

    def run(*arguments):
        command = [sys.executable, "-c", NO_TORCH, *arguments]
        done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    run("compress", "../photo.png", "../theirs.dk")
    (tmp_path / "ours.dk").write_bytes(ours.encode(picture()))
    for name in ("theirs", "ours"):
        run("decompress", f"../{name}.dk", f"../{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            decoded = np.asarray(image).astype(int)
        expected = ours.decode((tmp_path / f"{name}.dk").read_bytes()).astype(int)
        assert expected.std() > 1  # a picture, not a constant
        # Synthesis runs in float32 in both, where sums may round a pixel to either side.
        assert abs(decoded - expected).max() <= 1
        assert (decoded != expected).mean() < 0.01
    # A latent on the edge between two integers may round to either: the files need not be the same.
    sizes = [(tmp_path / f"{name}.dk").stat().st_size for name in ("ours", "theirs")]
    assert abs(sizes[0] - sizes[1]) <= 0.01 * sizes[0] + 2


def test_programs_of_torch_give_what_the_codec_gives(tmp_path):
    model = trained(compressai_codec("mean-scale"))
    export_model(model, "torch", tmp_path / "export")
    module, images = model.codec.module, torch.rand(1, 3, 128, 192)
    load = lambda name: torch.export.load(tmp_path / "export" / f"{name}.pt2").module()  # noqa: E731
    with torch.no_grad():
        y = module.g_a(images)
        torch.testing.assert_close(load("g_a")(images), y)
        z_hat = module.h_a(y).round()
        torch.testing.assert_close(load("h_s")(z_hat.double()).float(), module.h_s(z_hat))
        torch.testing.assert_close(load("g_s")(y), module.g_s(y))
    with np.load(tmp_path / "export" / "tables.npz") as tables:
        assert np.array_equal(tables["y.cdf"], module.gaussian_conditional._quantized_cdf.numpy())


def test_a_compressai_checkpoint_loads_in_compressai(tmp_path):
    from compressai.models import MeanScaleHyperprior

    model = trained(compressai_codec("mean-scale"))
    (path,) = export_model(model, "compressai", tmp_path / "student.pth.tar")
    plain = MeanScaleHyperprior.from_state_dict(torch.load(path, weights_only=True)["state_dict"]).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(images)["x_hat"], model.codec.module(images)["x_hat"])
        strings = plain.compress(images)["strings"]
        assert strings == model.codec.module.compress(images)["strings"]


def test_one_file_for_distillkit(tmp_path):
    model = trained(checkerboard(), "models.cheng2020")
    (path,) = export_model(model, "model", tmp_path / "student.safetensors")
    assert distillkit.load_model(path).fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (torch.nn.Conv2d(3, 5, 3, padding=1), (8, 12)),
        (torch.nn.Conv2d(3, 5, 5, stride=2, padding=2), (8, 12)),
        (torch.nn.Conv2d(3, 5, (1, 3)), (7, 9)),
        (torch.nn.ConvTranspose2d(3, 5, 5, stride=2, padding=2, output_padding=1), (8, 12)),
        (torch.nn.ConvTranspose2d(3, 5, 4, stride=(2, 3), padding=1, bias=False), (7, 5)),
    ],
)
def test_convolutions_of_matrix_products(layer, size):
    features = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        result = in_float64(torch.nn.Sequential(layer, torch.nn.LeakyReLU()))(features)
        torch.testing.assert_close(result, torch.nn.functional.leaky_relu(layer.double()(features)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_serial_context_is_refused(to, tmp_path):
    with pytest.raises(PairError, match="a serial context.*deploy it as one safetensors file"):
        export_model(trained(compressai_codec("serial")), to, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_what_cannot_be_done_is_said(tmp_path):
    model = trained(checkerboard(), "models.cheng2020")
    with pytest.raises(PairError, match="expected one of CompressAI's own architectures, got Cheng2020"):
        export_model(model, "compressai", tmp_path / "student.pth.tar")
    with pytest.raises(DistillkitError, match="expected the name of a file, got a folder"):
        export_model(model, "model", tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DistillkitError, match="expected a new or empty folder"):
        export_model(model, "torch", tmp_path)


def test_checkerboard_is_taken_apart():
    parts = take_apart(trained(checkerboard()).codec)
    assert parts.flow == "checkerboard"
    assert parts.entropy_models == {
        "y": "latent_codec.y.y.gaussian_conditional",
        "z": "latent_codec.hyper.entropy_bottleneck",
    }
