"""No export decodes to other pictures than its model: it is tried, and refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import distillkit
from distillkit.errors import PairError
from distillkit.export.exact import in_float64
from distillkit.export.export import export_model
from distillkit.model.adapters import as_codec, fingerprint
from tests.habits import HABITS, HabitPair
from tests.lively import picture


def model_of(module):
    codec = as_codec(module.eval())
    codec.update()
    return distillkit.TrainedModel(codec, "habits.pair", {}, "student", 0.01, fingerprint(codec.module))


@pytest.mark.parametrize("habit", ["residual", "slices"])
def test_a_codec_that_does_more_than_its_parts_names_tell_is_refused(habit, tmp_path):
    torch.manual_seed(0)
    with pytest.raises(PairError, match="expected an export that reads and writes the model's files, got .*--to model"):
        export_model(model_of(HABITS[habit](8, 16)), "torch", tmp_path / "out")
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


def test_gelu_in_float64():
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    result = in_float64(torch.nn.Sequential(torch.nn.GELU()))(x)
    torch.testing.assert_close(result, torch.nn.functional.gelu(x), rtol=0, atol=4e-15)


def test_gelu_in_the_hyper_synthesis_goes_to_onnx(tmp_path):
    from compressai.models import MeanScaleHyperprior

    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from distillkit.export.driver import ExportedCodec

    torch.manual_seed(0)
    codec = MeanScaleHyperprior(4, 8)
    codec.h_s[1] = torch.nn.GELU()
    model = model_of(codec)
    export_model(model, "onnx", tmp_path / "out")
    ours = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    data = ours.encode(picture(50, 60))
    assert abs(ExportedCodec(tmp_path / "out").decode(data).astype(int) - ours.decode(data)).max() <= 1
    assert np.asarray(ours.decode(data)).shape == (50, 60, 3)


@pytest.mark.slow
@pytest.mark.parametrize("habit", sorted(set(HABITS) - {"residual", "slices"}))
def test_every_habit_is_exported_whole_or_refused(habit, tmp_path):
    """What is written was tried on real bytes, both ways; of the others nothing is left."""
    pair = HabitPair(HabitPair.Config(habit=habit))
    codec = as_codec(pair.build_student())
    codec.update()
    model = distillkit.TrainedModel(codec, "habits.pair", {"habit": habit}, "student", 0.01, fingerprint(codec.module))
    try:
        export_model(model, "torch", tmp_path / "out")
    except PairError as error:
        assert "--to model" in str(error)  # noqa: PT017
        assert not (tmp_path / "out").exists()
    else:
        assert (tmp_path / "out/run.py").is_file()
