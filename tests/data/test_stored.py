"""Pictures of other samples than 8-bit RGB, read as they stand from the files that people have."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from distillkit import Samples, read_image
from distillkit.data.images import check_images, survey
from distillkit.data.stored import write_picture
from distillkit.errors import DataError


def values(channels, bits=8, height=6, width=9):
    dtype = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(0).integers(0, 2**bits, (height, width, channels), dtype=dtype)


def png_of_16_bits(picture):
    """A PNG that Pillow cannot write: 16 bits per sample, several channels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = picture.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in picture)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (1, 12), (1, 16), (3, 16), (4, 8), (4, 12), (7, 10), (3, 6)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_what_is_written_is_read_to_the_bit(channels, bits, suffix, tmp_path):
    samples = Samples(channels, bits)
    if suffix == ".png" and samples.suffix != ".png":
        pytest.skip("PNG has no such samples, or Pillow does not write them")
    picture = values(channels, bits)
    write_picture(tmp_path / "a", picture, suffix)
    again = read_image(tmp_path / "a", samples=samples)
    assert again.dtype == samples.dtype
    assert np.array_equal(again, picture)


def test_png_of_16_bits_and_several_channels_is_refused(tmp_path):
    """Pillow would keep the upper 8 bits."""
    (tmp_path / "a.png").write_bytes(png_of_16_bits(values(3, 16)))
    with pytest.raises(DataError, match="got RGB of 16 bits per channel; save it as TIFF or .npy"):
        read_image(tmp_path / "a.png", samples=Samples(3, 16))
    (tmp_path / "a.png").write_bytes(png_of_16_bits(values(1, 16)))
    assert np.array_equal(read_image(tmp_path / "a.png", samples=Samples(1, 16)), values(1, 16))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_bands(planar, order, tmp_path):
    picture = values(4, 12)
    stored = picture if planar == "contig" else picture.transpose(2, 0, 1)
    options = {"planarconfig": planar, "photometric": "minisblack", "byteorder": order}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif", samples=Samples(4, 12)), picture)


def test_grey_pictures_of_every_format(tmp_path):
    picture = values(1)
    image = Image.fromarray(picture[:, :, 0])
    for name, options in (("a.png", {}), ("b.tif", {"compression": "tiff_lzw"}), ("c.bmp", {}), ("d.pgm", {})):
        image.save(tmp_path / name, **options)
        assert np.array_equal(read_image(tmp_path / name, samples=Samples(1, 8)), picture), name


def test_numpy_of_two_dimensions_or_of_rgb(tmp_path):
    np.save(tmp_path / "grey.npy", values(1, 12)[:, :, 0])
    assert np.array_equal(read_image(tmp_path / "grey.npy", samples=Samples(1, 12)), values(1, 12))
    np.save(tmp_path / "rgb.npy", np.asfortranarray(values(3)))
    assert np.array_equal(read_image(tmp_path / "rgb.npy"), values(3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation, tmp_path):
    """As Pillow's own `exif_transpose` turns them."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values(1)[:, :, 0]).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(tmp_path / "a.png", samples=Samples(1, 8))[:, :, 0], expected)


def test_other_pictures_become_grey_on_request(tmp_path):
    Image.fromarray(values(3)).save(tmp_path / "a.png")
    grey = Samples(1, 8)
    with pytest.raises(
        DataError, match=r"(?s)data.convert.*expected 1 channel of 8 bits, in uint8, got 3 channels of uint8"
    ):
        check_images([tmp_path / "a.png"], samples=grey)
    expected = np.asarray(Image.fromarray(values(3)).convert("L"))[:, :, None]
    assert np.array_equal(read_image(tmp_path / "a.png", convert=True, samples=grey), expected)
    assert survey([tmp_path / "a.png"], convert=True, samples=grey).converted.total() == 1
    assert "expected 4 channels" in str(survey([tmp_path / "a.png"], convert=True, samples=Samples(4, 8)).problems[0])


def test_what_is_wrong_is_reported(tmp_path):
    def refusal(name, samples, **options):
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / name, samples=samples, **options)
        return str(caught.value)

    np.save(tmp_path / "high.npy", np.full((4, 4), 5000, np.uint16))
    assert "expected values up to 4095, for 1 channel of 12 bits, got 5000" in refusal("high.npy", Samples(1, 12))
    np.save(tmp_path / "float.npy", np.zeros((4, 4), np.float32))
    assert "got 1 channel of float32" in refusal("float.npy", Samples(1, 12))
    np.save(tmp_path / "line.npy", np.zeros(4, np.uint8))
    assert "expected (H, W) or (H, W, C)" in refusal("line.npy", Samples(1, 8))
    np.save(tmp_path / "objects.npy", np.array([[{}]], object))
    assert "of object" in refusal("objects.npy", Samples(1, 8))
    np.save(tmp_path / "huge.npy", np.zeros((4, 4), np.uint8))
    data = (tmp_path / "huge.npy").read_bytes()
    (tmp_path / "huge.npy").write_bytes(data.replace(b"(4, 4), }        ", b"(99999, 99999), }"))
    assert "expected at most" in refusal("huge.npy", Samples(1, 8))
    np.save(tmp_path / "cut.npy", np.zeros((40, 40), np.uint8))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    assert "expected a readable image" in refusal("cut.npy", Samples(1, 8))
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((3, 5, 5), np.uint16), photometric="minisblack")
    assert "3 pages; expected one" in refusal("pages.tif", Samples(3, 12))
    assert "expected at least 64x64 pixels" in refusal("high.npy", Samples(1, 16), min_side=64)
    (tmp_path / "text.png").write_text("no picture")
    assert "expected a picture (AVIF" in refusal("text.png", Samples(1, 8))
    assert survey([tmp_path / "text.png", tmp_path / "absent.tif"], samples=Samples(1, 8)).problems[1]


def test_samples_out_of_range():
    for wrong in ((0, 8), (3, 17), (70000, 8)):
        with pytest.raises(ValueError, match="expected 1 to 65535 channels of 1 to 16 bits"):
            Samples(*wrong)
