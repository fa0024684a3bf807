"""Classical codecs to compare with: JPEG, WebP, AVIF, JPEG XL and VVC, each with its settings described in words.

The settings are those of its library where they do not matter to the rate, and the best for RGB PSNR where they do and
cost no time: the measure that learned codecs are trained for. Times are of whole calls in memory, from pixels to
bytes and back; VVC runs as a program, and its times include the start of a process.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from ..errors import DistillkitError, did_you_mean


@final
@dataclass(frozen=True)
class ClassicalCodec:
    """A codec that needs no model.

    Attributes:
        name: as in `CLASSICAL`.
        title: for tables and plots.
        encode: picture, uint8, shape (H, W, 3), RGB, and quality -> the bytes of a compressed file.
        decode: those bytes -> picture, uint8, shape (H, W, 3), RGB.
        qualities: whole numbers; a higher one gives a larger and better file.
        settings: what it was called with, in words.
        version: of the library or program.
    """

    name: str
    title: str
    encode: Callable[[NDArray[Any], int], bytes]
    decode: Callable[[bytes], NDArray[Any]]
    qualities: range
    settings: str
    version: str


class MissingCodecError(DistillkitError):
    """A classical codec is not installed; the message says how to get it."""


def classical_codec(name: str, threads: int = 1) -> ClassicalCodec:
    """Return a codec by its name.

    Args:
        name: one of `CLASSICAL`.
        threads: that it may use; JPEG and WebP always use one.

    Raises:
        MissingCodecError: it is not installed.
        DistillkitError: there is no codec of this name.
    """
    if name not in CLASSICAL:
        raise DistillkitError(
            f"classical codec: expected one of {', '.join(CLASSICAL)}, got {name!r}; correct the name."
            f"{did_you_mean(name, CLASSICAL)}"
        )
    return CLASSICAL[name](threads)


def _jpeg(_: int) -> ClassicalCodec:
    turbo = features.version("libjpeg_turbo")
    version = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    encode = _pillow_encode("JPEG", subsampling="4:2:0", optimize=True, progressive=True)
    # By RGB PSNR 4:2:0 beat 4:4:4 from 0.3 to 2.6 bpp on the four pictures of Kodak that were tried.
    settings = "4:2:0, progressive, optimised Huffman tables, one thread"
    return ClassicalCodec("jpeg", "JPEG", encode, _pillow_decode, range(1, 96), settings, _with_pillow(version))


def _webp(_: int) -> ClassicalCodec:
    if not features.check("webp"):
        raise MissingCodecError("WebP: Pillow was built without it; `pip install --force-reinstall pillow`.")
    encode = _pillow_encode("WEBP", method=6)
    settings = "lossy (always 4:2:0), method 6, one thread"
    version = _with_pillow(f"libwebp {features.version('webp')}")
    return ClassicalCodec("webp", "WebP", encode, _pillow_decode, range(101), settings, version)


def _avif(threads: int) -> ClassicalCodec:
    if not features.check("avif"):
        raise MissingCodecError("AVIF: Pillow was built without it; `pip install --upgrade 'pillow>=11.3'`.")
    from PIL import AvifImagePlugin

    def decode(data: bytes) -> NDArray[Any]:
        AvifImagePlugin.DEFAULT_MAX_THREADS = threads
        return _pillow_decode(data)

    options = {"subsampling": "4:4:4", "speed": 6, "codec": "aom", "max_threads": threads, "advanced": {"tune": "psnr"}}
    encode = _pillow_encode("AVIF", **options)
    settings = f"libaom, 4:4:4, 8 bits, speed 6, tune=psnr, threads {threads}"
    version = _with_pillow(f"libavif {features.version('avif')}")
    return ClassicalCodec("avif", "AVIF", encode, decode, range(100), settings, version)  # 100 would be lossless


def _jpeg_xl(threads: int) -> ClassicalCodec:
    from importlib.metadata import version

    try:
        from pillow_jxl import JpegXLImagePlugin  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise MissingCodecError("JPEG XL: not installed; `pip install 'distillkit-lic[anchors]'`.") from None

    def decode(data: bytes) -> NDArray[Any]:
        JpegXLImagePlugin.DECODE_THREADS = threads
        return _pillow_decode(data)

    encode = _pillow_encode("JXL", effort=7, num_threads=threads)
    settings = f"lossy (XYB, tuned for visual quality rather than PSNR), effort 7, threads {threads}"
    about = f"libjxl in pillow-jxl-plugin {version('pillow-jxl-plugin')}"
    return ClassicalCodec("jpeg-xl", "JPEG XL", encode, decode, range(100), settings, about)  # 100 would be lossless


def _vvc(threads: int) -> ClassicalCodec:
    program = _ffmpeg_with_vvc()
    head = _run([program, "-version"]).split(b"\n", 1)[0].decode()
    start = [program, "-v", "error", "-threads", str(threads)]
    colours = "flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"

    def encode(image: NDArray[Any], quality: int) -> bytes:
        height, width, _ = image.shape
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        size = f"{padded.shape[1]}x{padded.shape[0]}"
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", "-", "-frames:v", "1"]
        wanted = ["-vf", f"scale=out_color_matrix=bt709:out_range=full:{colours},format=yuv420p10le"]
        coded = ["-c:v", "libvvenc", "-preset", "medium", "-qp", str(_LARGEST_QP - quality), "-qpa", "0"]
        stream = _run([*start, *given, *wanted, *coded, "-threads", str(threads), "-f", "vvc", "-"], padded.tobytes())
        return struct.pack("<HH", width, height) + stream

    def decode(data: bytes) -> NDArray[Any]:
        width, height = struct.unpack_from("<HH", data)
        wanted = ["-vf", f"scale=in_color_matrix=bt709:in_range=full:{colours},format=rgb24", "-f", "rawvideo", "-"]
        pixels = _run([*start, "-f", "vvc", "-i", "-", *wanted], data[4:])
        shape = (height + height % 2, width + width % 2, 3)
        return np.frombuffer(pixels, np.uint8).reshape(shape)[:height, :width].copy()

    settings = (
        f"VVenC through ffmpeg, one intra frame, 4:2:0 (all that VVenC does), 10 bits, preset medium, QPA off, threads "
        f"{threads}; decoded by ffmpeg; 4 bytes for the size; times include the start of a process"
    )
    version = " ".join(head.split()[:3])
    return ClassicalCodec("vvc", "VVC (VVenC)", encode, decode, range(_LARGEST_QP + 1), settings, version)


#: Name -> builder of the codec for a number of threads.
CLASSICAL: dict[str, Callable[[int], ClassicalCodec]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": _avif,
    "jpeg-xl": _jpeg_xl,
    "vvc": _vvc,
}
_LARGEST_QP = 63


def _pillow_encode(kind: str, **options: Any) -> Callable[[NDArray[Any], int], bytes]:
    def encode(image: NDArray[Any], quality: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, quality=quality, **options)
        return file.getvalue()

    return encode


def _pillow_decode(data: bytes) -> NDArray[Any]:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _with_pillow(library: str) -> str:
    import PIL

    return f"{library} (Pillow {PIL.__version__})"


def _ffmpeg_with_vvc() -> str:
    """Return an ffmpeg that writes VVC: the one on the path, or the one inside the package imageio-ffmpeg."""
    programs = [program for program in [shutil.which("ffmpeg")] if program]
    try:
        import imageio_ffmpeg  # pyright: ignore[reportMissingImports] - an extra

        programs.append(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: the package carries no program for this machine
        pass
    for program in programs:
        if b"libvvenc" in _run([program, "-v", "error", "-encoders"]):
            return program
    raise MissingCodecError("VVC: no ffmpeg with libvvenc; `pip install 'distillkit-lic[anchors]'` brings one.")


def _run(command: list[str], data: bytes = b"") -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise DistillkitError(
            f"{command[0]}: expected it to end with code 0, got {done.returncode}; its output: {said or 'none'}."
        )
    return done.stdout
