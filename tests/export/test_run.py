"""An export's `run.py` reads pictures by the rules of `distillkit compress`, and ends as it does."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from distillkit.codec.bitstream import read, write
from distillkit.data.images import read_image
from distillkit.data.named_colours import cicp_profile
from distillkit.errors import BitstreamError, DistillkitError
from distillkit.export import memory
from distillkit.export.driver import ExportedCodec
from tests.lively import picture

from .test_export import RUN, exported, run_alone  # noqa: F401 - a fixture

READ = """
import sys
import numpy as np
from distillkit_codec.data.images import read_image
for name in sys.argv[1:]:
    np.save(f"{name}.npy", read_image(name, convert=True))
"""


@pytest.fixture
def pictures(tmp_path):
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    made = {
        "deep.png": (Image.fromarray(grey), {}),
        "see-through.png": (Image.new("RGBA", (64, 64), (200, 100, 0, 51)), {}),
        "p3.jpg": (Image.fromarray(picture()), {"icc_profile": cicp_profile(12, 13)}),
        "bright.png": (Image.fromarray(grey), {"transparency": 65520}),
    }
    for name, (image, options) in made.items():
        image.save(tmp_path / name, **options)
    return [tmp_path / name for name in made]


def test_it_reads_what_distillkit_reads(exported, pictures):  # noqa: F811
    _, out = exported
    done = run_alone(out, READ, *map(str, pictures))
    assert done.returncode == 0, done.stderr
    for path in pictures:
        np.testing.assert_array_equal(np.load(f"{path}.npy"), read_image(path, convert=True))
    assert np.load(f"{pictures[0]}.npy")[1, 0, 0] == 64 * 16 >> 8
    assert np.load(f"{pictures[1]}.npy")[0, 0].tolist() == [244, 224, 204]


def test_bad_input_ends_with_its_message(exported, pictures, tmp_path):  # noqa: F811
    _, out = exported
    (tmp_path / "innocent.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n")
    Image.new("RGB", (70000, 16)).save(tmp_path / "long.png")
    Image.fromarray(picture()).save(tmp_path / "sound.png")
    for source, target, words in (
        ("deep.png", "x.dk", "expected 8-bit RGB, got greyscale of 16 bits per channel"),
        ("innocent.png", "x.dk", "got something else"),
        ("long.png", "x.dk", "sides of 1 to 65535 pixels, got 70000x16"),
        ("gone.png", "x.dk", "gone.png: expected a readable image, got FileNotFoundError"),
        ("sound.png", "no/folder/x.dk", "no/folder/x.dk: cannot be written: No such file or directory."),
    ):
        done = run_alone(out, RUN, "compress", str(tmp_path / source), str(tmp_path / target))
        assert done.returncode == 2
        assert words in done.stderr
        assert source in done.stderr or target in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / target).exists()
    done = run_alone(out, RUN, "compress", str(pictures[0]), str(tmp_path / "x.dk"), "--convert")
    assert done.returncode == 0, done.stderr
    for target, words in (("x.xyz", "expected a name that ends like a picture's"), ("no/x.png", "cannot be written")):
        done = run_alone(out, RUN, "decompress", str(tmp_path / "x.dk"), str(tmp_path / target))
        assert done.returncode == 2
        assert f"{target}: {words}" in done.stderr
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stride", None),
        ("fingerprint", 7),
        ("fingerprint", "x"),
        ("reads", [None]),
        ("entropy_path", []),
        ("networks", 3),
        ("networks", ["../g_a"]),
        ("networks", [["g_a"]]),
        ("networks", ["/dev/zero"]),
        ("entropy_models", {"none": "none"}),
        ("latents", {"y": 3}),
        ("context_channels", "many"),
    ],
)
def test_a_description_of_wrong_shapes_or_with_paths(exported, tmp_path, key, value):  # noqa: F811
    _, out = exported
    shutil.copytree(out, tmp_path / "copy")
    file = tmp_path / "copy" / "codec.json"
    about = json.loads(file.read_text())
    ExportedCodec(tmp_path / "copy")
    for changed in (about | {key: value}, {name: about[name] for name in about if name != key}):
        file.write_text(json.dumps(changed))
        with pytest.raises(DistillkitError, match=r"^export .*(export again|export the model again)\.$"):
            ExportedCodec(tmp_path / "copy")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut", np.lib.format.magic(1, 0)])
def test_damaged_tables(exported, tmp_path, content):  # noqa: F811
    _, out = exported
    shutil.copytree(out, tmp_path / "copy")
    (tmp_path / "copy" / "tables.npz").write_bytes(content)
    with pytest.raises(DistillkitError, match="expected the tables and the description of a codec"):
        ExportedCodec(tmp_path / "copy")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_large_picture_is_reported_and_refused(exported, monkeypatch, caplog):  # noqa: F811
    _, out = exported
    codec = ExportedCodec(out, threads=1)
    monkeypatch.setattr(memory, "free_ram", lambda: 10**6)
    codec.encode(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(
        DistillkitError, match=r"image of 4100x1040 pixels: coding it takes about [01]\.\d GB of memory, got"
    ):
        codec.encode(np.zeros((1040, 4100, 3), np.uint8))
    file = codec.encode(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DistillkitError, match="of memory, got 0.0 GB that are free"):
        codec.decode(write(replace(read(file), width=4100, height=1040)))
    assert not caplog.records
    monkeypatch.setattr(memory, "free_ram", lambda: 10**12)
    with pytest.raises(BitstreamError):
        codec.decode(write(replace(read(file), width=4100, height=1040)))
    assert "coding it takes about" in caplog.text
    assert "1000.0 GB are free" in caplog.text


MEASURE = """
import numpy as np
from distillkit_codec.export import memory
from distillkit_codec.export.driver import ExportedCodec
codec = ExportedCodec(".", threads=1)
guard = memory.ExportMemory(codec._code)
expected = guard._measured() * 1040 * 4100
(memory._PROCESS / "clear_refs").write_text("5")
before = memory._peak_bytes()
codec.decode(codec.encode(np.random.default_rng(0).integers(0, 256, (1040, 4100, 3), dtype=np.uint8)))
print(expected, memory._peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_figure_is_what_a_process_takes(exported):  # noqa: F811
    done = run_alone(exported[1], MEASURE)
    assert done.returncode == 0, done.stderr
    expected, got = map(float, done.stdout.split())
    assert 0.6 * got < expected < 2.5 * got


def test_few_bytes_cost_little(exported, tmp_path):  # noqa: F811
    """A file is read as far as a picture of its size goes, and too few bytes for that are refused at once."""
    _, out = exported
    with (tmp_path / "zeros.dk").open("wb") as file:
        file.truncate(6 << 30)  # a hole: it takes no room
    codec = ExportedCodec(out, threads=1)
    image = read(codec.encode(np.zeros((64, 64, 3), np.uint8)))
    (tmp_path / "claims.dk").write_bytes(write(replace(image, width=8192, height=8192, substreams=(b"\1\2\3",))))
    for name, words in (("zeros.dk", "byte 0: expected b'DKIC'"), ("claims.dk", "a substream of at least")):
        done = run_alone(out, RUN, "decompress", str(tmp_path / name), str(tmp_path / "out.png"))
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
