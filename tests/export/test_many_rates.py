"""Exports of codecs of many rates: the quality is an input of the driver, and its gains are distillkit's."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

import distillkit
from distillkit.errors import PairError
from distillkit.export.driver import ExportedCodec
from distillkit.export.export import export_model
from distillkit.model.lmbda import LmbdaRange

from .test_export import RUN, compressai_codec, picture, run_alone, trained


@pytest.mark.slow
def test_an_export_of_many_rates_takes_a_quality(tmp_path):
    codec = distillkit.GainedCodec(compressai_codec("mean-scale"), 3)
    model = replace(trained(codec), lmbda=LmbdaRange(0.002, 0.05))
    out = tmp_path / "export"
    export_model(model, "torch", out)
    assert json.loads((out / "codec.json").read_text())["lmbda"] == {"low": 0.002, "high": 0.05}
    assert codec.gain_units.quality is not None  # the model is as it was
    theirs = ExportedCodec(out, threads=1)
    ours = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    files = [theirs.encode(picture(), quality) for quality in (0.0, 0.4, 1.0)]
    assert [len(file) for file in files] == sorted({len(file) for file in files})
    for file in files:
        assert abs(theirs.decode(file).astype(int) - ours.decode(file)).max() <= 1
    for quality in (None, 1.5, float("nan")):
        with pytest.raises(PairError, match="expected a quality from 0 to 1"):
            theirs.encode(picture(), quality)
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    command = ("compress", str(tmp_path / "photo.png"), str(tmp_path / "photo.dk"), "--quality", "0.4")
    done = run_alone(out, RUN, *command, refused=("distillkit", "compressai"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "photo.dk").read_bytes() == files[1]


def test_an_export_of_one_rate_takes_none(tmp_path):
    export_model(trained(compressai_codec("factorized")), "torch", tmp_path / "export")
    with pytest.raises(PairError, match="no quality, for the codec has one rate"):
        ExportedCodec(tmp_path / "export", threads=1).encode(picture(), 0.5)


def test_steps_of_compressais_own_are_refused(tmp_path):
    pair = distillkit.load_plugins().get("pair", "models.compressai", "test")
    student = {"architecture": "mbt2018-mean-vbr", "N": 8, "M": 12}
    codec = pair(pair.Config.model_validate({"student": student})).build_student()
    codec.module.eval()
    codec.update()
    model = distillkit.TrainedModel(codec, "none", {}, "student", LmbdaRange(0.002, 0.05), "0" * 32)
    with pytest.raises(PairError, match="got many rates by other means. Deploy it"):
        export_model(model, "torch", tmp_path / "export")
