"""Pictures of other kinds, held out by choice: they become what the codec takes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distillkit.data.held_out import hold_out
from distillkit.data.images import read_image
from distillkit.data.listing import list_images
from distillkit.data.samples import Samples
from distillkit.errors import DataError


@pytest.fixture
def mixed(tmp_path):
    """Twelve pictures: the first, of those that are held out, is transparent; another one is grey, one no picture."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
    for number, each in enumerate(values):
        Image.fromarray(each).save(folder / f"{number:02}.png")
    Image.fromarray(values[0]).convert("RGBA").save(folder / "00.png")
    Image.fromarray(values[5]).convert("L").save(folder / "05.png")
    Image.fromarray(values[10]).convert("CMYK").save(folder / "10.tif")
    (folder / "10.png").unlink()
    return folder


def test_what_is_held_out_is_converted_and_the_rest_is_linked(mixed, tmp_path):
    with pytest.raises(DataError, match="got 3 that cannot be used"):
        hold_out(mixed, tmp_path / "images")
    for _ in range(2):  # again, the copies are taken as they are
        train, held_out = hold_out(mixed, tmp_path / "images", convert=True)
        assert [path.name for path in held_out] == ["00.png", "10.tif.png"]
        for path, source in zip(held_out, ("00.png", "10.tif"), strict=True):
            assert not path.is_symlink()
            assert (read_image(path) == read_image(mixed / source, convert=True)).all()
        assert len(list_images(train)) == 10
        assert all(path.is_symlink() for path in list_images(train))


def test_a_grey_codec_gets_grey_pictures(mixed, tmp_path):
    _, held_out = hold_out(mixed, tmp_path / "images", convert=True, samples=Samples(1, 8))
    assert [read_image(path, samples=Samples(1, 8)).shape for path in held_out] == [(24, 32, 1)] * 2


def test_what_cannot_be_used_is_left_to_the_training(mixed, tmp_path):
    train, held_out = hold_out(mixed, tmp_path / "images", skip=True)
    assert [path.name for path in held_out] == ["01.png"]
    assert {"00.png", "05.png", "10.tif"} <= {path.name for path in list_images(train)}
    for path in mixed.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="got 12 that cannot be used"):
        hold_out(mixed, tmp_path / "other", skip=True)


def test_a_file_of_the_users_is_kept(mixed, tmp_path):
    (tmp_path / "images/held_out").mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(tmp_path / "images/held_out/00.png")
    with pytest.raises(DataError, match="it is kept"):
        hold_out(mixed, tmp_path / "images", convert=True)
    assert read_image(tmp_path / "images/held_out/00.png").max() == 0
