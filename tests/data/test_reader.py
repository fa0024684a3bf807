"""The values of pixels that are read: other kinds of picture, colour profiles, damaged metadata, formats not meant."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

import distillkit
from distillkit.data.images import check_image, check_images, read_image, survey
from distillkit.data.named_colours import cicp_profile
from distillkit.errors import DataError
from tests.data.test_images import save
from tests.lively import picture


def keep(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, bits, colour, row, *chunks):
    """Write a PNG of one row from its raw bytes and further chunks."""
    channels = {0: 1, 2: 3}[colour]
    head = struct.pack(">IIBBBBB", 8 * len(row) // (bits * channels), 1, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


class TestFormats:
    def test_no_other_decoder_is_started(self, tmp_path, monkeypatch):
        """PostScript would be handed to Ghostscript, which runs programs."""
        path = tmp_path / "innocent.png"
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n")
        monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
        with Image.open(path) as image:
            assert image.format == "EPS"  # Pillow by itself takes it
        for convert in (False, True):
            with pytest.raises(DataError, match=r"expected a picture \(AVIF, .*WEBP\), got something else"):
                read_image(path, convert=convert)

    @pytest.mark.parametrize("format", ["ICO", "TGA", "PCX", "SGI", "DDS", "PDF", "MSP", "QOI", "SPIDER"])
    def test_nor_is_any_of_pillows_others(self, format, tmp_path):
        file = io.BytesIO()
        modes = {"MSP": "1", "SPIDER": "F"}
        Image.new(modes.get(format, "RGB"), (16, 16)).save(file, format)
        (tmp_path / "x.png").write_bytes(file.getvalue())
        with pytest.raises(DataError, match="got something else"):
            read_image(tmp_path / "x.png", convert=True)

    @pytest.mark.parametrize("suffix", ["ppm", "jp2", "jfif"])
    def test_further_ones(self, suffix, tmp_path):
        path = tmp_path / f"x.{suffix}"
        Image.new("RGB", (16, 16), (10, 200, 90)).save(path, {"jfif": "JPEG"}.get(suffix))
        assert np.abs(read_image(path).astype(int) - [10, 200, 90]).max() <= 2

    @pytest.mark.parametrize("options", [{}, {"convert": True}])
    def test_no_file_at_all(self, options, tmp_path):
        with pytest.raises(DataError, match="it is no file"):
            read_image(tmp_path, **options)


class TestKinds:
    @pytest.mark.parametrize(
        ("pixels", "expected"),
        [
            (np.full((4, 4), 77, np.uint8), (77, 77, 77)),
            (np.full((4, 4), 300 * 77, np.uint16), (90, 90, 90)),
            (np.full((4, 4, 4), (200, 100, 0, 51), np.uint8), (244, 224, 204)),  # a fifth, on white
            (np.full((4, 4, 2), (0, 255), np.uint8), (0, 0, 0)),
            (np.full((4, 4, 2), (0, 51), np.uint8), (204, 204, 204)),
        ],
    )
    def test_converted_on_request_only(self, pixels, expected, tmp_path):
        path = keep(tmp_path / "x.png", pixels)
        with pytest.raises(DataError, match="expected 8-bit RGB, got "):
            read_image(path)
        assert (read_image(path, convert=True) == expected).all()

    def test_grey_of_16_bits_with_a_transparent_value(self, tmp_path):
        values = np.array([[0, 255, 256, 30000, 65535]], np.uint16)
        path = keep(tmp_path / "x.png", values, transparency=30000)
        assert read_image(path, convert=True)[0, :, 0].tolist() == [0, 0, 1, 255, 255]

    @pytest.mark.parametrize(("bits", "row", "expected"), [(2, 0b00011011, [0, 255, 170, 255]), (4, 0x1F, [255, 255])])
    def test_grey_of_few_bits_with_a_transparent_value(self, bits, row, expected, tmp_path):
        path = png(tmp_path / "x.png", bits, 0, bytes([row]), chunk(b"tRNS", b"\0\1"))
        assert read_image(path, convert=True)[0, :, 0].tolist() == expected

    def test_a_transparent_colour_of_48_bits_is_refused(self, tmp_path):
        """Pillow keeps 8 bits of 16, so it cannot be known which pixels are meant."""
        path = png(tmp_path / "x.png", 16, 2, bytes(12), chunk(b"tRNS", bytes(6)))
        with pytest.raises(DataError, match="transparent colour, of which Pillow keeps 8"):
            read_image(path, convert=True)

    def test_ppm_of_16_bits(self, tmp_path):
        path = tmp_path / "x.ppm"
        path.write_bytes(b"P6 1 1 65535\n" + struct.pack(">3H", 300, 65535, 25600))
        with pytest.raises(DataError, match="got RGB of 16 bits per channel"):
            read_image(path)
        assert read_image(path, convert=True).tolist() == [[[1, 255, 100]]]

    @pytest.mark.parametrize(("highest", "expected"), [(255, 100), (1023, 25), (65535, 0)])
    def test_pgm(self, highest, expected, tmp_path):
        path = tmp_path / "x.pgm"
        path.write_bytes(f"P5 1 1 {highest}\n".encode() + (b"\x64" if highest == 255 else b"\0\x64"))
        assert read_image(path, convert=True).tolist() == [[[expected] * 3]]

    def test_jpeg_2000_of_16_bits(self, tmp_path):
        path = keep(tmp_path / "x.jp2", np.full((16, 16), 300 * 77, np.uint16))
        assert check_image(path).message.startswith("expected 8-bit RGB, got greyscale of 16 bits per channel")
        assert (read_image(path, convert=True) == 90).all()

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_what_has_no_white_is_refused(self, dtype, tmp_path):
        path = keep(tmp_path / "x.tif", np.zeros((8, 8), dtype))
        problem = check_image(path, convert=True)
        assert "expected 8-bit RGB, got greyscale" in problem.message
        assert not problem.convertible
        with pytest.raises(DataError, match="got greyscale"):
            read_image(path, convert=True)

    def test_survey_counts_what_is_converted(self, tmp_path):
        paths = [save(tmp_path / f"{mode}{n}.png", mode) for mode, n in (("L", 2), ("P", 1), ("RGB", 3), ("L", 1))]
        problems, converted = survey(paths, convert=True)
        assert (problems, converted) == ([], {"greyscale": 2, "palette colours": 1})
        problems, converted = survey(paths)
        assert [problem.convertible for problem in problems] == [True] * 3
        assert not converted

    def test_damaged_pixels_are_found_on_request(self, tmp_path):
        path = save(tmp_path / "x.png")
        path.write_bytes(path.read_bytes()[:-300])
        check_images([path])
        with pytest.raises(DataError, match=r"got 1 that cannot be used.*\n  image .*x\.png: expected a readable"):
            check_images([path], pixels=True)


def lcms_srgb():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def named(profile, name):
    """Return a profile with another description of 13 characters."""
    changed = profile.replace("sRGB built-in".encode("utf-16-be"), f"{name:13.13}".encode("utf-16-be"))
    assert name in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(changed)))
    return changed


def linear(profile):
    """Return lcms's sRGB with a straight line for its tone curve."""
    changed = bytearray(profile)
    at = changed.find(b"para", 128 + 4 * 12)
    changed[at : at + 4], changed[at + 8 : at + 12] = b"curv", bytes(4)
    return bytes(changed)


class TestColours:
    DISPLAY_P3 = (200, 100, 50)
    IN_SRGB = (215, 93, 31)  # by the matrix of CSS Color 4, in double precision

    def test_the_expected_value(self):
        light = np.array([value / 255 for value in self.DISPLAY_P3])
        light = ((light + 0.055) / 1.055) ** 2.4
        matrix = [[1.2249401, -0.2249402, 0.0], [-0.0420569, 1.0420571, 0.0], [-0.0196376, -0.0786361, 1.0982735]]
        srgb = 1.055 * (np.array(matrix) @ light) ** (1 / 2.4) - 0.055
        assert np.abs(255 * srgb - self.IN_SRGB).max() < 0.6

    def test_srgb_is_left_as_it_is(self, tmp_path):
        for name in ("Camera", "sRGB"):
            path = keep(tmp_path / "x.png", picture(), icc_profile=named(lcms_srgb(), name))
            np.testing.assert_array_equal(read_image(path), picture())

    @pytest.mark.parametrize("name", ["Lin. built-in", "linear sRGB", "sRGB"])
    def test_what_a_profile_does_counts_not_its_name(self, name, tmp_path):
        profile = named(linear(lcms_srgb()), name)
        path = keep(tmp_path / "x.png", np.full((4, 4, 3), 55, np.uint8), icc_profile=profile)
        assert abs(read_image(path).astype(int) - 128).max() <= 1  # linear 55 / 255 is 128 in sRGB

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
    def test_every_reader_carries_a_profile_out(self, suffix, tmp_path):
        path = tmp_path / f"x.{suffix}"
        options = {"quality": 100, "subsampling": "4:4:4"} if suffix in ("jpg", "avif") else {}
        options |= {"lossless": True} if suffix == "webp" else {}
        Image.new("RGB", (16, 16), self.DISPLAY_P3).save(path, icc_profile=cicp_profile(12, 13), **options)
        assert np.abs(distillkit.read_image(path).astype(int) - self.IN_SRGB).max() <= 4

    def test_colours_named_by_numbers(self, tmp_path):
        """PNG's cICP and AVIF's nclx, which Pillow does not read."""
        row = bytes(self.DISPLAY_P3)
        path = png(tmp_path / "x.png", 8, 2, row, chunk(b"cICP", bytes([12, 13, 0, 1])))
        assert np.abs(read_image(path).astype(int) - self.IN_SRGB).max() <= 1
        path = png(tmp_path / "x.png", 8, 2, row, chunk(b"cICP", bytes([1, 13, 0, 1])))
        assert read_image(path).tolist() == [[[*row]]]
        path = png(tmp_path / "x.png", 8, 2, row, chunk(b"cICP", bytes([9, 16, 0, 1])))
        with pytest.raises(DataError, match=r"got colours with primaries 9 and transfer 16"):
            read_image(path)
        path = tmp_path / "x.avif"
        Image.new("RGB", (16, 16), self.DISPLAY_P3).save(path, quality=100, subsampling="4:4:4")
        data = bytearray(path.read_bytes())
        at = data.index(b"colrnclx") + 8
        data[at : at + 4] = struct.pack(">HH", 12, 13)
        path.write_bytes(data)
        assert np.abs(read_image(path).astype(int) - self.IN_SRGB).max() <= 4

    def test_gamma_of_png(self, tmp_path):
        row = bytes([55, 55, 55])
        gamma = chunk(b"gAMA", struct.pack(">I", 100000))
        assert np.abs(read_image(png(tmp_path / "x.png", 8, 2, row, gamma)).astype(int) - 128).max() <= 1
        usual = chunk(b"gAMA", struct.pack(">I", 45455))
        assert read_image(png(tmp_path / "x.png", 8, 2, row, usual)).tolist() == [[[55] * 3]]
        assert read_image(png(tmp_path / "x.png", 8, 2, row, chunk(b"sRGB", b"\0"), gamma)).tolist() == [[[55] * 3]]
        wide = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
        colours = read_image(png(tmp_path / "x.png", 8, 2, bytes(self.DISPLAY_P3), usual, wide))
        assert np.abs(colours.astype(int) - self.IN_SRGB).max() <= 1

    def test_adobe_rgb_of_cameras(self, tmp_path):
        """DCF 2.0: EXIF alone says so. In sRGB (128, 160, 128) is (112.7, 161.5, 127.4), by Lindbloom's matrices."""
        entries = [(0x8769, 4, 1, 26), (0xA005, 4, 1, 44), (1, 2, 4, int.from_bytes(b"R03\0", "little"))]
        folders = b"".join(struct.pack("<HHHIII", 1, *entry, 0) for entry in entries)
        exif = b"Exif\0\0II*\0\x08\0\0\0" + folders  # 0th, Exif and interoperability directory, an entry each
        path = tmp_path / "x.jpg"
        Image.new("RGB", (16, 16), (128, 160, 128)).save(path, exif=exif, quality=100, subsampling=0)
        assert np.abs(read_image(path) - (112.7, 161.5, 127.4)).max() <= 2
        Image.new("RGB", (16, 16), (128, 160, 128)).save(path, quality=100, subsampling=0)
        assert np.abs(read_image(path).astype(int) - (128, 160, 128)).max() <= 1

    def test_other_kinds_have_profiles_too(self, tmp_path):
        profile = linear(lcms_srgb())
        alpha = keep(tmp_path / "a.png", np.full((4, 4, 4), (55, 55, 55, 51), np.uint8), icc_profile=profile)
        assert np.abs(read_image(alpha, convert=True).astype(int) - (204 + 128 // 5)).max() <= 1
        grey = keep(tmp_path / "g.png", np.full((4, 4), 55, np.uint8), icc_profile=profile)  # one for RGB
        assert np.abs(read_image(grey, convert=True).astype(int) - 128).max() <= 1
        palette = tmp_path / "p.png"
        Image.new("RGB", (4, 4), (55, 55, 55)).quantize(2).save(palette, icc_profile=profile)
        assert np.abs(read_image(palette, convert=True).astype(int) - 128).max() <= 1

    def test_a_profile_that_cannot_be_used(self, tmp_path):
        path = keep(tmp_path / "x.png", picture(), icc_profile=b"rubbish")
        assert check_image(path).convertible
        with pytest.raises(DataError, match="expected colours that can become sRGB, got a profile that cannot be read"):
            read_image(path)
        np.testing.assert_array_equal(read_image(path, convert=True), picture())


class TestMetadata:
    def exif(self, orientation, cut):
        """Return EXIF with an orientation; if cut, its directory promises more than is there."""
        entries = struct.pack("<HHHII", 50 if cut else 1, 0x0112, 3, 1, orientation)
        return b"Exif\0\0II*\0\x08\0\0\0" + entries + (b"" if cut else bytes(4))

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
    def test_cut_exif_leaves_the_pixels_sound(self, suffix, tmp_path):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(picture()).save(path, exif=self.exif(1, cut=True))
        with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as image:
            image.getexif()
        assert check_image(path) is None
        assert read_image(path).shape == picture().shape

    @pytest.mark.parametrize("rubbish", [b"Exif\0\0", b"Exif\0\0rubbish that is no TIFF", bytes(range(256))])
    def test_rubbish_exif(self, rubbish, tmp_path):
        path = keep(tmp_path / "x.png", picture(), exif=rubbish)
        np.testing.assert_array_equal(read_image(path), picture())

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation(self, orientation, tmp_path):
        upright = picture()
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: np.rot90(upright),
            7: upright[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(upright, -1),
        }
        path = keep(tmp_path / "x.png", stored[orientation].copy(), exif=self.exif(orientation, cut=False))
        np.testing.assert_array_equal(read_image(path), upright)

    @pytest.mark.parametrize(
        "damaged",
        [
            chunk(b"iCCP", b""),
            chunk(b"pHYs", b"\0"),
            chunk(b"acTL", b""),
            chunk(b"gAMA", b"\0"),
            chunk(b"sRGB", b""),
            chunk(b"tEXt", b"a\0b")[:-1] + b"x",  # of another checksum
            chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000))),  # more than Pillow unpacks
        ],
    )
    def test_damaged_chunks_leave_the_pixels_sound(self, damaged, tmp_path):
        path = png(tmp_path / "x.png", 8, 2, bytes([1, 2, 3]), damaged)
        with pytest.raises((ValueError, OSError)), Image.open(path):
            pass
        assert read_image(path).tolist() == [[[1, 2, 3]]]
        assert check_image(path) is None

    def test_what_decides_on_pixels_stays(self, tmp_path):
        profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(linear(lcms_srgb())))
        turned = chunk(b"eXIf", self.exif(6, cut=False)[6:])
        damaged = chunk(b"pHYs", b"\0")
        path = png(tmp_path / "x.png", 8, 2, bytes([55, 55, 55, 0, 0, 0]), damaged, profile, turned)
        assert np.abs(read_image(path).astype(int) - [[[128] * 3], [[0] * 3]]).max() <= 1
        pixels = png(tmp_path / "y.png", 8, 2, bytes([1, 2, 3]), damaged).read_bytes()
        (tmp_path / "y.png").write_bytes(pixels[:29] + bytes(4) + pixels[33:])  # the checksum of the sizes
        with pytest.raises(DataError, match=r"y\.png: expected a picture"):
            read_image(tmp_path / "y.png")

    @pytest.mark.parametrize(("marker", "data"), [(0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe\0"), (0xE0, b"JFIF\0")])
    def test_damaged_segments_leave_the_pixels_sound(self, marker, data, tmp_path):
        path = keep(tmp_path / "x.jpg", picture(), exif=self.exif(3, cut=False))
        expected = read_image(path)
        segment = bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data
        path.write_bytes(path.read_bytes()[:2] + segment + path.read_bytes()[2:])
        with pytest.raises((OSError, IndexError, struct.error)), Image.open(path):
            pass
        np.testing.assert_array_equal(read_image(path), expected)

    def test_cut_exif_of_tiff(self, tmp_path):
        path = keep(tmp_path / "x.tif", picture(), tiffinfo={34665: 999999})
        np.testing.assert_array_equal(read_image(path), picture())
