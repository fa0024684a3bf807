"""docs/file-format.md and docs/coding.md: the table is the code's, the examples run."""

from __future__ import annotations

import re
import shlex
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distillkit.cli.app import app
from distillkit.codec import bitstream
from distillkit.codec.bitstream import CompressedImage, write
from distillkit.codec.reading import MAX_PIXELS
from distillkit.model.file import save_model
from tests.lively import adapter, picture

DOCS = Path(__file__).parents[2] / "docs"
FORMAT, CODING = ((DOCS / name).read_text(encoding="utf-8") for name in ("file-format.md", "coding.md"))


def test_the_table_is_the_file():
    """The offsets and sizes of the page take a file apart, and give what was written."""
    rows = re.findall(r"^\| (\d+) \| (\d+)(?: to 5 each)? \| ([\w ]+)", FORMAT, flags=re.MULTILINE)
    assert [name.split()[0] for *_, name in rows] == [
        "magic", "version", "the", "the", "entropy", "fields", "width", "height", "number", "quality", "number", "bits",
        "the",
    ]  # fmt: skip
    substreams = (b"ab", b"", b"x" * 300)
    image = CompressedImage(bytes(range(8)), 515, 772, substreams, b"hash", b"path", 0.4, 4, 12)
    data = write(image)
    fields = [data[int(offset) : int(offset) + int(size)] for offset, size, _ in rows]
    version = struct.pack("<B", bitstream.VERSION)
    sizes = struct.pack("<H", 515), struct.pack("<H", 772)
    assert fields[:9] == [b"DKIC", version, bytes(range(8)), b"path", b"hash", b"\3", *sizes, b"\3"]
    assert fields[9:12] == [struct.pack("<H", 26214), b"\4\0", b"\x0c"]
    assert int(rows[12][0]) == sum(int(size) for _, size, _ in rows[:12])
    rest = data[int(rows[12][0]) :]
    assert rest == b"\x02\x00\xac\x02" + b"".join(substreams) + struct.pack("<I", zlib.crc32(data[:-4]))


@pytest.mark.parametrize(("size", "overhead"), [(2**21 - 1, 40), (2**28 - 1, 43)])
def test_the_overhead_is_as_the_page_says(size, overhead):
    stated = re.search(r"takes at most (\d+) bytes; under 256 MB it takes (\d+)", FORMAT)
    assert str(overhead) in stated.groups()
    # Only lengths matter: the head, three lengths of this many bytes, and the CRC.
    assert bitstream.HEADS[bitstream.VERSION].size + 3 * len(bitstream._leb128(size)) + 4 == overhead


def test_the_limit_is_as_the_pages_say():
    assert MAX_PIXELS // 10**6 == 67
    assert "67 million" in FORMAT
    assert "67 megapixels" in CODING


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(Path("runs/student/model.safetensors"), adapter("checkerboard"), "models.cheng2020", {}, "student", 0.01)
    Path("photos").mkdir()
    for path in ("photo.png", "photos/1.png"):
        Image.fromarray(picture()).save(path)


@pytest.mark.slow
def test_the_examples_run(here):
    for line in "".join(re.findall(r"```sh\n(.*?)```", CODING, flags=re.DOTALL)).splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "distillkit"
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert {path.name for path in Path().rglob("*.*")} >= {"photo.dk", "back.png", "1.dk"}
    for text in (FORMAT, CODING):
        (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        scope: dict = {}
        exec(compile(code, "docs", "exec"), scope)
        if "picture" in scope:
            np.testing.assert_array_equal(scope["picture"], np.asarray(Image.open("back.png")))
