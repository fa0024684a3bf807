"""Exports: what one writes the other decodes, in a process without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from distillkit_models.compressai_zoo import KNOWN
from PIL import Image
from typer.testing import CliRunner

import distillkit
from distillkit.cli.app import app
from distillkit.errors import DistillkitError, PairError
from distillkit.export.driver import ExportedCodec
from distillkit.export.exact import in_float64
from distillkit.export.export import export_model
from distillkit.export.parts import take_apart
from distillkit.model.adapters import as_codec, fingerprint
from distillkit.model.file import save_model
from distillkit.model.tensors import read_tensors
from tests.lively import adapter as lively_adapter

REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {names}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
for name in {names}:
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{{name}} could be imported")
"""

CODE = """
import sys
from pathlib import Path
import numpy as np
from distillkit_codec.export.driver import ExportedCodec
codec = ExportedCodec(".", threads=1)
for size in ("large", "small"):
    Path(f"../theirs-{size}.dk").write_bytes(codec.encode(np.load(f"../{size}.npy"), *map(float, sys.argv[1:])))
    for writer in ("ours", "theirs"):
        np.save(f"../{writer}-{size}.npy", codec.decode(Path(f"../{writer}-{size}.dk").read_bytes()))
"""

RUN = """
import runpy
runpy.run_path("run.py", run_name="__main__")
"""


def run_alone(folder, code, *arguments, refused=("torch", "distillkit", "distillkit_models", "compressai")):
    """Run code in an export's folder, in a process in which those packages cannot be imported."""
    command = [sys.executable, "-c", REFUSE.format(names=refused) + code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)


def in_a_process_of_its_own(function, *arguments):
    """Call a function of a module where OpenVINO may be loaded.

    On processors with AMX, tests that start processes crashed later in a process that had loaded it.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def need(to):
    packages = {
        "onnx": ("onnxscript", "onnxruntime"),
        "openvino": ("onnxscript", "onnxruntime", "openvino"),
        "torch": (),
    }
    for package in packages[to]:
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")


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


def shipped(name="models.cheng2020", **options):
    torch.manual_seed(0)
    pair = distillkit.load_plugins().get("pair", name, "test")
    return pair(pair.Config(size="tiny", **options)).build_student()


def lively(module):
    """Make random weights spread the latent over several symbols, and its scales over several tables."""
    with torch.no_grad():
        for name, parameter in as_codec(module).module.named_parameters():
            if name.startswith("gain."):
                parameter.add_(torch.randn_like(parameter) / 4)
            if name.startswith("g_a") and name.endswith("weight") and parameter.ndim == 4:
                parameter.mul_(2.0)
            if "h_s" in name and name.endswith("weight"):
                parameter.mul_(3.0)
            if ".norm" in name and name.endswith("weight"):
                parameter.fill_(0.5)  # attention blocks are the identity when built
    return module


def trained(module, name="none"):
    codec = as_codec(lively(module))
    codec.module.eval()
    codec.update()
    return distillkit.TrainedModel(codec, name, {}, "student", 0.013, fingerprint(codec.module))


def picture(height=100, width=150):
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(0)
    waves = np.stack([128 + 70 * np.sin(x / (9 + c)) + 50 * np.cos(y / (7 + c)) for c in range(3)], 2)
    return (waves + random.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)


CODECS = {
    "factorized": (lambda: compressai_codec("factorized"), "factorized"),
    "scale": (lambda: compressai_codec("scale"), "scale"),
    "mean-scale": (lambda: compressai_codec("mean-scale"), "mean-scale"),
    "cheng2020": (lambda: shipped("models.cheng2020"), "checkerboard"),
    "scale, many rates": (lambda: distillkit.GainedCodec(compressai_codec("scale"), 3), "scale"),
    "cheng2020, many rates": (lambda: shipped("models.cheng2020", gain_units=6), "checkerboard"),
}


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("onnx", "factorized"),
        *(pytest.param("onnx", name, marks=pytest.mark.slow) for name in CODECS if name != "factorized"),
        *(pytest.param("torch", name, marks=pytest.mark.slow) for name in ("mean-scale", "scale, many rates")),
        pytest.param("openvino", "cheng2020", marks=pytest.mark.slow),
    ],
)
def test_files_go_both_ways(to, name, tmp_path):
    """Pictures of two sizes, other than the one that was traced."""
    need(to)
    if to == "openvino":
        in_a_process_of_its_own(check_both_ways, to, name, tmp_path)
    else:
        check_both_ways(to, name, tmp_path)


def check_both_ways(to, name, tmp_path):
    build, flow = CODECS[name]
    model = trained(build())
    out = tmp_path / "export"
    export_model(model, to, out)
    assert json.loads((out / "codec.json").read_text())["flow"] == flow
    ours = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    quality = 0.7 if "many rates" in name else None
    pictures = {"large": picture(100, 150), "small": picture(30, 40)}
    for size, pixels in pictures.items():
        np.save(tmp_path / f"{size}.npy", pixels)
        (tmp_path / f"ours-{size}.dk").write_bytes(ours.encode(pixels, quality))
    refused = ("distillkit", "distillkit_models", "compressai", "timm") + (("torch",) if to != "torch" else ())
    done = run_alone(out, CODE, *([] if quality is None else [str(quality)]), refused=refused)
    assert done.returncode == 0, done.stderr
    for size in pictures:
        for writer in ("theirs", "ours"):
            decoded = np.load(tmp_path / f"{writer}-{size}.npy").astype(int)
            expected = ours.decode((tmp_path / f"{writer}-{size}.dk").read_bytes()).astype(int)
            assert expected.std() > 1  # a picture, not a constant
            # Synthesis runs in float32 in both, where sums may round a pixel to either side.
            assert abs(decoded - expected).max() <= 1
            assert (decoded != expected).mean() < 0.01
        # A latent on the edge between two integers may round to either: the files need not be the same.
        sizes = [(tmp_path / f"{writer}-{size}.dk").stat().st_size for writer in ("ours", "theirs")]
        assert abs(sizes[0] - sizes[1]) <= 0.01 * sizes[0] + 2


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    model, out = trained(compressai_codec("factorized")), tmp_path_factory.mktemp("exported") / "export"
    export_model(model, "onnx", out)
    return model, out


def test_command_line_of_an_export(exported, tmp_path):
    model, out = exported
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    for arguments in (("compress", "photo.png", "photo.dk"), ("decompress", "photo.dk", "out.png")):
        done = run_alone(out, RUN, arguments[0], *(str(tmp_path / name) for name in arguments[1:]))
        assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out.png") as image:
        decoded = np.asarray(image).astype(int)
    ours = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    assert abs(decoded - ours.decode((tmp_path / "photo.dk").read_bytes())).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_threads_that_share_an_export_write_and_read_what_one_does(to, tmp_path):
    need(to)
    if to == "openvino":
        in_a_process_of_its_own(check_threads, to, tmp_path)
    else:
        check_threads(to, tmp_path)


def check_threads(to, tmp_path):
    export_model(trained(compressai_codec("factorized")), to, tmp_path / "export")
    codec = ExportedCodec(tmp_path / "export", threads=1)
    pictures = [picture(40 + 9 * number, 200 - 11 * number) for number in range(12)]
    expected = [codec.encode(each) for each in pictures]
    decoded = [codec.decode(each) for each in expected]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(codec.encode, 3 * pictures)) == 3 * expected
        for got, wanted in zip(threads.map(codec.decode, 3 * expected), 3 * decoded, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_an_export_refuses_what_it_cannot_decode(exported, tmp_path):
    model, out = exported
    ours = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    sound = ours.encode(picture(30, 40))
    torch.manual_seed(1)
    other = type(model.codec.module)(12, 16)
    torch.nn.init.normal_(next(other.entropy_bottleneck.parameters()))
    other = trained(other)
    foreign = distillkit.ImageCodec(other.codec, other.fingerprint, precision="fp32").encode(picture(30, 40))
    for name, data, words in (
        ("damaged", sound[:-9] + bytes(9), "CRC-32"),
        ("foreign", foreign, "decode it with the model that wrote it"),
        ("empty", b"", "not a file that distillkit compressed"),
    ):
        (tmp_path / name).write_bytes(data)
        done = run_alone(out, RUN, "decompress", str(tmp_path / name), str(tmp_path / "out.png"))
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out.png").exists()


@pytest.mark.slow
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
        ours, theirs = model.codec.module.compress(images), plain.compress(images)
        assert theirs["strings"] == ours["strings"]
        decoded = plain.decompress(ours["strings"], ours["shape"])["x_hat"]
        assert torch.equal(decoded, model.codec.module.decompress(theirs["strings"], theirs["shape"])["x_hat"])


def test_one_file_for_distillkit(tmp_path):
    model = trained(shipped(), "models.cheng2020")
    model.options["size"] = "tiny"
    (path,) = export_model(model, "model", tmp_path / "student.safetensors")
    tensors, metadata = read_tensors(path)
    assert json.loads(metadata["model"])["options"] == {"size": "tiny"}
    assert tensors["latent_codec.hyper.entropy_bottleneck._quantized_cdf"].numel() > 0
    loaded = distillkit.load_model(path)
    assert loaded.fingerprint == model.fingerprint
    ours, theirs = (distillkit.ImageCodec(m.codec, m.fingerprint, precision="fp32") for m in (model, loaded))
    data = ours.encode(picture())
    assert theirs.encode(picture()) == data
    assert np.array_equal(theirs.decode(data), ours.decode(data))


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (torch.nn.Conv2d(3, 5, 3, padding=1), (8, 12)),
        (torch.nn.Conv2d(3, 5, 5, stride=2, padding=2), (8, 12)),
        (torch.nn.Conv2d(3, 5, (1, 3)), (7, 9)),
        (torch.nn.ConvTranspose2d(3, 5, 5, stride=2, padding=2, output_padding=1), (8, 12)),
        (torch.nn.ConvTranspose2d(3, 5, 4, stride=(2, 3), padding=1, bias=False), (7, 5)),
        (torch.nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2), (8, 7)),
        (torch.nn.Conv2d(4, 6, 1, stride=2), (8, 7)),
        (torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (5, 7)),
    ],
)
def test_convolutions_of_matrix_products(layer, size):
    features = torch.rand(1, layer.in_channels, *size, dtype=torch.float64)
    network = torch.nn.Sequential(layer.double(), torch.nn.LeakyReLU()).requires_grad_(False)
    program = torch.export.export(network, (features,)).run_decompositions(in_float64())
    assert "conv" not in program.graph_module.code
    with torch.no_grad():
        result = program.module()(features)
        torch.testing.assert_close(result, torch.nn.functional.leaky_relu(layer.double()(features)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_serial_context_is_refused(to, tmp_path):
    with pytest.raises(PairError, match="a serial context.*Deploy it as one safetensors file"):
        export_model(trained(compressai_codec("serial")), to, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_what_cannot_be_done_is_said(tmp_path):
    model = trained(shipped(), "models.cheng2020")
    with pytest.raises(PairError, match="expected one of CompressAI's own architectures, got Cheng2020"):
        export_model(model, "compressai", tmp_path / "student.pth.tar")
    from compressai.models import Elic2022Official

    other_groups = trained(Elic2022Official(N=16, M=16, groups=[4, 4, 8]))
    with pytest.raises(PairError, match="expected sizes that CompressAI's Elic2022Official.from_state_dict can tell"):
        export_model(other_groups, "compressai", tmp_path / "student.pth.tar")
    with pytest.raises(DistillkitError, match="expected the name of a file, got a folder"):
        export_model(model, "model", tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DistillkitError, match="expected a new or empty folder"):
        export_model(model, "torch", tmp_path)
    for to in ("model", "compressai"):
        with pytest.raises(DistillkitError, match=r"mine\.txt: exists already .* or pass `--overwrite`"):
            export_model(model, to, tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_replaced_only_on_request(tmp_path):
    name = "x" * 243 + ".safetensors"  # as long as names may be
    save_model(tmp_path / name, lively_adapter("checkerboard"), "models.cheng2020", {"size": "tiny"}, "student", 0.013)
    before = (tmp_path / name).read_bytes()
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    command = ["export", str(tmp_path / name), str(tmp_path / "mine")]  # gets its suffix
    with pytest.raises(DistillkitError, match=r"mine\.safetensors: exists already"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert CliRunner().invoke(app, [*command, "--overwrite"], catch_exceptions=False).exit_code == 0
    assert distillkit.load_model(tmp_path / "mine.safetensors").part == "student"
    with pytest.raises(DistillkitError, match="exists already"):
        export_model(distillkit.load_model(tmp_path / name), "model", tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


FLOWS = {
    "bmshj2018-factorized": "factorized",
    "bmshj2018-hyperprior": "scale",
    "mbt2018-mean": "mean-scale",
    "cheng2020-anchor-checkerboard": "checkerboard",
}


@pytest.mark.parametrize("architecture", KNOWN)
def test_what_can_be_taken_apart(architecture):
    """Every architecture of CompressAI's: the documented kinds can, the others are refused with the reason."""
    sizes = {"N": 16} if architecture.startswith("cheng2020") else {"N": 16, "M": 16}
    groups = {"groups": (4, 4, 8)} if architecture.startswith("elic2022") else {}
    pair = distillkit.load_plugins().get("pair", "models.compressai", "test")
    student = {"architecture": architecture} | sizes | groups
    codec = as_codec(pair(pair.Config.model_validate({"student": student})).build_student())
    codec.module.eval()
    codec.update()
    if architecture in FLOWS:
        assert take_apart(codec).flow == FLOWS[architecture]
        return
    many_rates = architecture.endswith("-vbr")
    reason = "several entropy models" if groups else "many rates" if many_rates else "a serial context"
    with pytest.raises(PairError, match=f"{reason}.*deploy it as one safetensors file"):
        take_apart(codec)


def test_checkerboard_is_taken_apart():
    parts = take_apart(trained(shipped()).codec)
    assert parts.flow == "checkerboard"
    assert parts.entropy_models == {
        "y": "latent_codec.y.y.gaussian_conditional",
        "z": "latent_codec.hyper.entropy_bottleneck",
    }
