"""Files of every version of the format that was released still decode, with the models that wrote them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

import distillkit
from distillkit.codec.bitstream import VERSION, read
from tests.golden.make import ARCHITECTURES, FOLDER, picture, unpacked

FILES = sorted(FOLDER.glob("*.dk"))


def test_there_are_three_of_each_version():
    names = {f"{kind}-v{version}.dk" for kind in ARCHITECTURES for version in range(3, VERSION + 1)}
    assert {path.name for path in FILES} == names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_decodes(path, tmp_path):
    """To the picture of then, but for rounding: synthesis is in float32, where processors sum in different orders."""
    kind, version = re.fullmatch(r"(.*)-v(\d+)", path.stem).groups()
    data = path.read_bytes()
    assert data[4] == int(version)
    model = distillkit.load_model(unpacked(kind, tmp_path))
    codec = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    decoded = codec.decode(data).astype(int)
    with Image.open(FOLDER / f"{kind}.png") as image:
        expected = np.asarray(image).astype(int)
    assert abs(decoded - expected).max() <= 1
    assert (decoded != expected).mean() < 0.001
    if int(version) == VERSION:  # the model and its entropy path have the fingerprints of then
        written, then = read(codec.encode(picture())), read(data)
        assert (written.fingerprint, written.entropy_path) == (then.fingerprint, then.entropy_path)
