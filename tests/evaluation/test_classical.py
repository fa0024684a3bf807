"""Classical codecs: every one that is installed codes pictures, better at higher qualities."""

from __future__ import annotations

import numpy as np
import pytest

from distillkit.errors import DistillkitError
from distillkit.evaluation.classical import CLASSICAL, MissingCodecError, classical_codec
from distillkit.evaluation.quality import psnr_db


def picture(height, width):
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    waves = np.stack([128 + 60 * np.sin(x / (9 + c)) + 50 * np.cos(y / (7 + c)) for c in range(3)], 2)
    return (waves + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", CLASSICAL)
def test_higher_qualities_are_larger_and_better(name):
    try:
        codec = classical_codec(name)
    except MissingCodecError as missing:
        pytest.skip(str(missing))
    image = picture(61, 83)  # no side is even
    low, high = (codec.qualities[len(codec.qualities) * part // 10] for part in (2, 7))
    files = [codec.encode(image, quality) for quality in (low, high)]
    decoded = [codec.decode(file) for file in files]
    assert all(picture.shape == image.shape and picture.dtype == np.uint8 for picture in decoded)
    assert len(files[0]) < len(files[1])
    assert 20 < psnr_db(image, decoded[0]) < psnr_db(image, decoded[1])
    codec.encode(image, codec.qualities[0])
    codec.encode(image, codec.qualities[-1])
    assert codec.settings
    assert any(digit.isdigit() for digit in codec.version)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    with pytest.raises(MissingCodecError) as missing:
        classical_codec("jpeg-xl")
    assert str(missing.value) == "JPEG XL: not installed; `pip install 'distillkit-lic[anchors]'`."


def test_an_unknown_name_is_refused():
    with pytest.raises(
        DistillkitError, match="expected one of jpeg, .*got 'jepg'; correct the name. Did you mean 'jpeg'?"
    ):
        classical_codec("jepg")
