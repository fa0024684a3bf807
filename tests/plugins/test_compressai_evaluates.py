"""Exported students in plain CompressAI: its own evaluation reports the bpp and PSNR that ours does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import distillkit
from distillkit.errors import PairError
from distillkit.export.export import export_model
from distillkit.model.adapters import fingerprint
from tests.plugins.test_compressai_zoo import SMALL, distil

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from compressai.models import Elic2022Official
    from compressai.registry import MODELS
    from compressai.utils.eval_model.__main__ import eval_model

HEIGHT, WIDTH = 192, 256  # no padding on either side
# CompressAI tells ELIC's N from its weights, and takes M and groups for granted.
SIZES = SMALL | {name: {"N": 8, "M": 320} for name in ("elic2022-official", "elic2022-chandelier")}


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3))
    Image.fromarray(np.kron(blocks, np.ones((16, 16, 1))).astype(np.uint8)).save(folder / "picture.png")
    return folder


def in_plain_compressai(architecture: str, checkpoint: Path, pictures: Path) -> dict[str, float]:
    """Load as a user of CompressAI does, and measure with its `eval_model`; its command line knows its zoo alone."""
    net = MODELS[architecture].from_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    net.update(force=True)
    options = {"architecture": architecture, "half": False, "per_image": False}
    return eval_model(net.eval(), pictures, pictures, sorted(pictures.iterdir()), **options)


def check(theirs, model, pictures, folder):
    coder = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    ours = distillkit.evaluate(coder, sorted(pictures.iterdir()), folder, model.lmbda).averages
    psnr = theirs["psnr-rgb"]
    assert ours["psnr_db"] == pytest.approx(psnr[0] if isinstance(psnr, list) else psnr, abs=0.01)
    bpp = theirs["bpp"][0] if isinstance(theirs["bpp"], list) else theirs["bpp"]
    # Our file has a header, and another entropy coder, which says extreme symbols of untrained codecs in fewer bits.
    assert -0.01 * bpp <= ours["rate_bpp"] - bpp < 8 * 60 / (HEIGHT * WIDTH)


@pytest.mark.parametrize(
    "architecture",
    [name if name == "mbt2018-mean" else pytest.param(name, marks=pytest.mark.slow) for name in SIZES],
)
def test_the_same_figures(architecture, recipe, pictures, tmp_path, plugins):
    codec = {"architecture": architecture, **SIZES[architecture]}
    model = distil(recipe, tmp_path, plugins, codec, codec, num_steps=5)
    export_model(model, "compressai", tmp_path / "student.pth.tar")
    theirs = in_plain_compressai(architecture, tmp_path / "student.pth.tar", pictures)
    check(theirs, model, pictures, tmp_path / "out")


@pytest.mark.slow
def test_its_command_line(recipe, pictures, tmp_path, plugins):
    model = distil(recipe, tmp_path, plugins, {"N": 12, "M": 16}, {"N": 8, "M": 16}, num_steps=20)
    export_model(model, "compressai", tmp_path / "student.pth.tar")
    command = [sys.executable, "-W", "ignore", "-m", "compressai.utils.eval_model", "checkpoint", str(pictures)]
    command += ["-a", "mbt2018-mean", "-p", str(tmp_path / "student.pth.tar")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(re.search(r"\{.*\}", done.stdout, re.DOTALL)[0])["results"]
    check(theirs, model, pictures, tmp_path / "out")


@pytest.mark.slow
def test_sizes_that_compressai_would_not_guess_are_refused(recipe, tmp_path, plugins):
    codec = {"architecture": "elic2022-official", "N": 8, "groups": [4, 12]}
    model = distil(recipe, tmp_path, plugins, codec, codec)
    with pytest.raises(PairError, match=r"Elic2022Official.from_state_dict can tell .* Export it with `--to model`"):
        export_model(model, "compressai", tmp_path / "student.pth.tar")
    assert not (tmp_path / "student.pth.tar").exists()
    export_model(model, "model", tmp_path / "student.safetensors")
    plain = Elic2022Official(N=8, M=16, groups=[4, 12])
    plain.load_state_dict(load_file(tmp_path / "student.safetensors"))
    assert fingerprint(plain) == model.fingerprint
