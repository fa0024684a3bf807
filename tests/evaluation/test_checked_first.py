"""What would end an evaluation late is found before it starts; its own pictures are no data; names are any bytes."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from distillkit.data.listing import find_images
from distillkit.errors import DataError, DistillkitError
from distillkit.evaluation.contact_sheet import save_contact_sheet
from distillkit.evaluation.evaluate import evaluate
from distillkit.evaluation.side_by_side import compare
from distillkit.model import zoo
from tests.lively import coder, picture


@pytest.fixture(scope="module")
def codec():
    return coder("factorized")


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "png")
    return path


def test_damaged_pixels_end_it_before_the_first_picture(codec, tmp_path):
    paths = [save(tmp_path / "in" / name, picture()) for name in ("a.png", "b.png", "c.png")]
    for path in paths[1:]:
        path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"got 2 that cannot be used(.|\n)*b\.png(.|\n)*c\.png"):
        evaluate(codec, paths, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_a_missing_second_model_ends_it_before_the_first(tmp_path):
    models = {"first": zoo.find("zoo:lite-student"), "second": tmp_path / "gone"}
    with pytest.raises(DistillkitError, match="gone"):
        compare(models, [save(tmp_path / "a.png", picture())], tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Large:
    name, min_side = "lpips", 31

    def __call__(self, original, decoded):
        assert min(original.shape[:2]) >= self.min_side
        return 0.5


def test_small_pictures_and_names_of_any_bytes_lose_nothing(codec, tmp_path):
    small, large = save(tmp_path / "in/small.png", picture(30, 64)), save(tmp_path / "in/large.png", picture(64, 64))
    strange = tmp_path / "in" / os.fsdecode(b"\xff[b].png")
    os.rename(large, strange)
    evaluation = evaluate(codec, [small, strange], tmp_path / "out", None, perceptual=[Large()])
    assert [image.lpips for image in evaluation.images] == [None, 0.5]
    assert evaluation.averages["lpips"] is None  # a mean over some would mislead
    assert json.loads((tmp_path / "out/results.json").read_text())
    assert r"\udcff[b]" in (tmp_path / "out/images.csv").read_text()


def test_the_pictures_that_it_wrote_are_no_data(codec, tmp_path):
    path = save(tmp_path / "a.png", picture())
    evaluate(codec, [path], tmp_path / "runs/out", None)
    assert (tmp_path / "runs/out/a.png").exists()
    assert find_images(tmp_path).paths == [path]


def test_a_picture_longer_than_the_format_is_named(codec, tmp_path):
    long = save(tmp_path / "long.png", np.zeros((16, 70000, 3), np.uint8))
    first = save(tmp_path / "first.png", picture())
    with pytest.raises(DataError, match=r"long\.png: .*sides of 1 to 65535 pixels, got 70000x16"):
        evaluate(codec, [first, long], tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_pictures_of_any_shape_and_name_come_side_by_side(codec, tmp_path):
    shapes = {"low": (1, 3000), "narrow": (3000, 1), "one": (1, 1), os.fsdecode(b"\xff[b]"): (16, 16)}
    paths = [save(tmp_path / "a", picture(*shape)).rename(tmp_path / f"{name}.png") for name, shape in shapes.items()]
    evaluation = evaluate(codec, paths, tmp_path / "out" / "codec", None)
    save_contact_sheet(paths, {"codec": evaluation.images}, tmp_path / "out", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert 1000 < max(sheet.size) < 10_000
