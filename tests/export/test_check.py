"""No export decodes to other pictures than its model: all that a codec does is recorded, tried, and else refused."""

from __future__ import annotations

import json
import re

import pytest
import torch
from compressai.ans import BufferedRansEncoder, RansDecoder

import distillkit
from distillkit.data.stored import write_picture
from distillkit.errors import PairError
from distillkit.export.driver import ExportedCodec
from distillkit.export.export import export_model
from distillkit.model.adapters import as_codec, fingerprint
from tests.habits import HABITS, HabitPair
from tests.lively import picture
from tests.test_samples import waves

from .test_export import RUN, run_alone

NOT_TORCH = ("distillkit", "distillkit_models", "compressai")


def model_of(module):
    codec = as_codec(module)
    codec.module.eval()
    codec.update()
    return distillkit.TrainedModel(codec, "habits.pair", {}, "student", 0.01, fingerprint(codec.module))


def tried(model, to, out, samples=None, lines=None):
    """Export a model, and return what it and the export decode of each other's files."""
    export_model(model, to, out, on_part=[].append if lines is None else lines.append)
    codecs = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32"), ExportedCodec(out, threads=1)
    pixels = picture(50, 60) if samples is None else waves(samples, 0, 50, 60)
    files = [codec.encode(pixels) for codec in codecs]
    return [[codec.decode(file).astype(int) for codec in codecs] for file in files], json.loads(
        (out / "codec.json").read_text()
    )


@pytest.mark.parametrize(
    "habit", ["residual", *(pytest.param(name, marks=pytest.mark.slow) for name in ("slices", "sized"))]
)
def test_wrong_export(habit, tmp_path):
    """A codec that does more than the names of its modules tell is recorded, and exported whole."""
    torch.manual_seed(0)
    lines = []
    pictures, about = tried(model_of(HABITS[habit](4, 8)), "torch", tmp_path / "out", lines=lines)
    assert about["flow"] == "program"
    num_networks = len(about["networks"])
    first, last = lines[0], lines[-1]
    about_as_many = re.fullmatch(r"recording \w+, 0\.\d\d M parameters, as about (\d+) networks \(\d+ s\)", first)
    assert abs(int(about_as_many[1]) - num_networks) <= 2
    assert sum(line.startswith(f"writing {num_networks} networks of 0.") for line in lines) == 1
    assert [line.partition(":")[0] for line in lines if f" of {num_networks}, " in line] == about["networks"]
    assert last.startswith("trying it")
    for ours, theirs in pictures:
        assert ours.std() > 1
        assert abs(ours - theirs).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("to", "groups"), [("torch", [2, 6]), ("onnx", [8])])
def test_channel_groups_are_exported(to, groups, tmp_path):
    """Groups of channels, and checkerboards within each."""
    from compressai.models import Elic2022Official

    torch.manual_seed(0)
    pictures, about = tried(model_of(Elic2022Official(N=4, M=8, groups=groups)), to, tmp_path / "out")
    assert about["num_substreams"] == 1 + 2 * len(groups)
    assert max(abs(ours - theirs).max() for ours, theirs in pictures) <= 1


class Deciding(HABITS["residual"]):
    """Takes a decision by the values of a latent, which no program for all pictures can take."""

    def fix(self, y_hat, means):
        return super().fix(y_hat, means) if float(y_hat.mean()) > 0 else y_hat


class OneByOne(HABITS["slices"]):
    """Hands the coder one position after the other; its modules run as often for a large picture as for a small one."""

    def compress(self, x):
        y = self.g_a(x)
        z_strings = self.entropy_bottleneck.compress(self.h_a(y))
        encoder = BufferedRansEncoder()
        for position in y[0].flatten(1).t().round().int():
            encoder.encode_with_indexes(position.tolist(), (0 * position).tolist(), *self.tables())
        return {"strings": [[encoder.flush()], z_strings], "shape": y.shape[-2:]}

    def decompress(self, strings, shape):
        decoder, size = RansDecoder(), (self.M, shape[0] * shape[1])
        decoder.set_stream(strings[0][0])
        symbols = [decoder.decode_stream([0] * self.M, *self.tables()) for _ in range(size[1])]
        return {"x_hat": self.g_s(torch.Tensor(symbols).t().reshape(1, self.M, *shape))}


class Growing(HABITS["residual"]):
    """Does something else for large pictures."""

    def fix(self, y_hat, means):
        return super().fix(y_hat, means) if y_hat.shape[2] > 80 else y_hat


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (
            Deciding,
            "can be traced for pictures of any size, got .*data-dependent.*--to model.*that failed, too: codec Deci",
        ),
        (OneByOne, "got a serial context: the coder is called 17 times for a picture of one stride and 33 times"),
        pytest.param(Growing, "can be traced for pictures of any size, got .*--to model", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_recorded_is_refused_with_the_reason(codec, reason, tmp_path):
    torch.manual_seed(0)
    with pytest.raises(PairError, match=reason):
        export_model(model_of(codec(4, 8)), "torch", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_coder_is_refused_with_that_reason(tmp_path):
    reasons = "got another coder, which an export has no place for.*got no entropy bottleneck of CompressAI's"
    with pytest.raises(PairError, match=reasons):
        export_model(model_of(HABITS["compiled"]()), "torch", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_codec_is_no_checkpoint_of_compressais(tmp_path):
    from compressai.models import MeanScaleHyperprior

    torch.manual_seed(0)
    codec = MeanScaleHyperprior(8, 16)
    export_model(model_of(codec), "compressai", tmp_path / "sound.pth.tar")
    codec.g_s[1] = torch.nn.Identity()
    codec.g_s[3] = torch.nn.Identity()
    with pytest.raises(PairError, match="--to model"):
        export_model(model_of(codec), "compressai", tmp_path / "changed.pth.tar")
    codec = MeanScaleHyperprior(8, 16)
    codec.g_s.append(torch.nn.Hardtanh(0.9, 1.0))
    with pytest.raises(PairError, match="got one that was changed and codes otherwise. Export it with `--to model`"):
        export_model(model_of(codec), "compressai", tmp_path / "changed.pth.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["sound.pth.tar"]


@pytest.mark.slow
def test_gelu_in_the_hyper_synthesis_goes_to_onnx(tmp_path):
    from compressai.models import MeanScaleHyperprior

    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    torch.manual_seed(0)
    codec = MeanScaleHyperprior(4, 8)
    codec.h_s[1] = torch.nn.GELU()
    pictures, about = tried(model_of(codec), "onnx", tmp_path / "out")
    assert about["flow"] == "mean-scale"
    assert max(abs(ours - theirs).max() for ours, theirs in pictures) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("habit", sorted(set(HABITS) - {"residual", "slices", "grey", "bands"}))
def test_every_habit_is_exported_whole_or_refused(habit, tmp_path):
    """What is written was tried on real bytes, both ways; of the others nothing remains."""
    codec = as_codec(HabitPair(HabitPair.Config(habit=habit)).build_student())
    model = model_of(codec)
    try:
        export_model(model, "torch", tmp_path / "out")
    except PairError as error:
        assert "--to model" in str(error)  # noqa: PT017
        assert not (tmp_path / "out").exists()
    else:
        assert (tmp_path / "out/run.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("habit", ["bands", "grey"])
def test_an_export_codes_the_samples_of_its_model(habit, tmp_path):
    torch.manual_seed(0)
    module = HABITS[habit](4, 8)
    model = model_of(distillkit.CompressAIAdapter(module, samples=module.samples))
    out, samples = tmp_path / "out", module.samples
    pictures, _ = tried(model, "torch", out, samples)
    assert max(abs(ours - theirs).max() for ours, theirs in pictures) <= max(1, samples.peak // 255)
    write_picture(tmp_path / "scene.npy", waves(samples, 0, 50, 60), ".npy")
    for arguments in (("compress", "scene.npy", "scene.dk"), ("decompress", "scene.dk", f"back{samples.suffix}")):
        done = run_alone(out, RUN, arguments[0], *(str(tmp_path / name) for name in arguments[1:]), refused=NOT_TORCH)
        assert done.returncode == 0, done.stderr
    back = distillkit.read_image(tmp_path / f"back{samples.suffix}", samples=samples)
    ours = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    expected = ours.decode((tmp_path / "scene.dk").read_bytes()).astype(int)
    assert abs(expected - back).max() <= max(1, samples.peak // 255)
    if samples.channels == 4:
        done = run_alone(out, RUN, "decompress", str(tmp_path / "scene.dk"), str(tmp_path / "x.png"), refused=NOT_TORCH)
        assert done.returncode == 2
        assert "x.png: expected a name that ends like a picture's, as .tif, for 4 channels of 12 bits" in done.stderr
    ExportedCodec(out).encode(waves(samples, 0, 50, 60))
    with pytest.raises(ValueError, match="expected"):
        ExportedCodec(out).encode(picture(50, 60))
