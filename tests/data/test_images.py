import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillkit.data.images import check_image, check_images, read_image, survey
from distillkit.errors import DataError


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 32), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(size[1], size[0])).convert(mode).save(path, **options)
    return path


def png_16_bit(path: Path, width: int = 40, height: int = 32) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(6 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    return path


def tiff_16_bit(path: Path, width: int = 40, height: int = 32) -> Path:
    bits_at, pixels_at = 200, 206
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, bits_at),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, pixels_at),
        (277, 3, 1, 3),
        (278, 3, 1, height),
        (279, 4, 1, 6 * width * height),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)
    path.write_bytes(head.ljust(bits_at, b"\0") + struct.pack("<HHH", 16, 16, 16) + bytes(6 * width * height))
    return path


def deep_avif(path: Path, bits: int) -> Path:
    """Make an AVIF whose header says 10 or 12 bits; nothing at hand writes a real one."""
    save(path)
    data = bytearray(path.read_bytes())
    configuration, depths = data.index(b"av1C"), data.index(b"pixi") + 9
    data[configuration + 6] |= {10: 0x40, 12: 0x60}[bits]
    data[depths : depths + 3] = bytes([bits] * 3)
    path.write_bytes(data)
    return path


def truncated(path: Path) -> Path:
    save(path)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def text(path: Path) -> Path:
    path.write_text("not a picture", encoding="utf-8")
    return path


def two_frames(path: Path) -> Path:
    frames = [Image.fromarray(noise(32, 40) // part) for part in (1, 2)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_reads_the_very_pixels(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, noise(32, 40))


@pytest.mark.parametrize("suffix", ["jpg", "avif"])
def test_reads_lossy_formats(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (40, 32), (10, 200, 90)).save(path)
    pixels = read_image(path)
    assert pixels.shape == (32, 40, 3)
    assert np.abs(pixels.astype(int) - [10, 200, 90]).max() <= 4


def test_orientation_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    path = save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(noise(32, 40), k=-1))


BAD = {
    "greyscale": (lambda path: save(path, "L"), "png", "got greyscale"),
    "greyscale jpeg": (lambda path: save(path, "L"), "jpg", "got greyscale"),
    "greyscale avif": (lambda path: save(path, "L"), "avif", "got greyscale"),
    "greyscale with alpha": (lambda path: save(path, "LA"), "png", "got greyscale with alpha"),
    "alpha": (lambda path: save(path, "RGBA"), "png", "got RGB with alpha"),
    "alpha webp": (
        lambda path: Image.fromarray(noise(32, 40, 4), "RGBA").save(path) or path,
        "webp",
        "got RGB with alpha",
    ),
    "transparent colour": (lambda path: save(path, transparency=(1, 2, 3)), "png", "transparent colour"),
    "palette": (lambda path: save(path, "P"), "png", "got palette colours"),
    "two colours": (lambda path: save(path, "1"), "png", "got black and white"),
    "cmyk": (lambda path: save(path, "CMYK"), "jpg", "got CMYK"),
    "16-bit grey": (lambda path: save(path, "I;16"), "png", "got greyscale of 16 bits per channel"),
    "16-bit png": (png_16_bit, "png", "got RGB of 16 bits per channel"),
    "16-bit tiff": (tiff_16_bit, "tif", "got RGB of 16 bits per channel"),
    "10-bit avif": (lambda path: deep_avif(path, 10), "avif", "got RGB of 10 bits per channel"),
    "12-bit avif": (lambda path: deep_avif(path, 12), "avif", "got RGB of 12 bits per channel"),
    "frames": (two_frames, "webp", "got several frames"),
    "not an image": (text, "png", "got something else; save it again or remove it"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_what_is_not_8_bit_rgb(tmp_path, name):
    make, suffix, message = BAD[name]
    path = make(tmp_path / f"bad.{suffix}")
    problem = check_image(path)
    assert problem is not None
    assert problem.path == path
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert str(problem) == str(error.value)
    assert str(error.value).startswith(f"image {path}: expected ")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_files_are_errors(tmp_path, suffix):
    path = truncated(tmp_path / f"a.{suffix}")
    with pytest.raises(DataError, match="expected a readable image, got"):
        read_image(path)


def test_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="FileNotFoundError"):
        read_image(tmp_path / "a.png")


def test_too_small(tmp_path):
    path = save(tmp_path / "a.png")
    assert check_image(path, min_side=32) is None
    assert read_image(path, min_side=32).shape == (32, 40, 3)
    with pytest.raises(DataError, match=r"expected at least 33x33 pixels .* got 40x32"):
        read_image(path, min_side=33)


@pytest.mark.parametrize("limit", [1000, 500])  # Pillow warns above its limit and raises above twice that
def test_decompression_bombs_are_errors(tmp_path, monkeypatch, limit):
    path = save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    warnings.simplefilter("ignore")  # as where nobody turns warnings into errors; pytest restores it
    with pytest.raises(DataError, match=r"expected at most .* pixels, got more .*; cut it into parts"):
        read_image(path)


def test_reports_all_bad_files_at_once(tmp_path):
    good = save(tmp_path / "good.png")
    bad = [save(tmp_path / f"bad{index}.png", "L") for index in range(7)]
    check_images([good], min_side=32)
    assert [problem.path for problem in survey([good, *bad]).problems] == bad
    with pytest.raises(DataError) as error:
        check_images([good, *bad], min_side=32)
    message = str(error.value)
    assert "all 8 to be 8-bit RGB" in message
    assert "got 7 that cannot be used" in message
    assert 'data.bad_images = "skip"' in message
    assert [name in message for name in ("bad0", "bad4", "bad5")] == [True, True, False]
    assert message.endswith("... and 2 more.")
