"""`distillkit bench`: what it measures, on a pair that codes well without training."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distillkit
from distillkit.errors import CheckpointError, DataError
from distillkit.evaluation.classical import classical_codec
from distillkit.evaluation.quality import psnr_db
from distillkit.evaluation.speed.equal_quality import match_psnr
from distillkit.evaluation.speed.measure import bench
from distillkit.evaluation.speed.plot import save_plot
from distillkit.evaluation.speed.table import notes
from distillkit.evaluation.speed.timing import Coder, Latency, Quartiles, Run, time_by_turns, warm_up
from distillkit.model.adapters import as_codec
from distillkit.model.file import save_model

ROOT = Path(__file__).parents[2]


def picture(number, height=60, width=84):
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 60 * np.sin(x / (9 + c + number)) + 50 * np.cos(y / (7 + c)) for c in range(3)], 2)
    return (waves + np.random.default_rng(number).normal(0, 6, (height, width, 1))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Two models, two pictures of different sizes, and the installed plugin that the models need."""
    import tests.dct_pair

    folder = tmp_path_factory.mktemp("work")
    pair = tests.dct_pair.DctPair(tests.dct_pair.DctPair.Config())
    for part in ("teacher", "student"):
        codec = as_codec(getattr(pair, f"build_{part}")())
        (folder / part).mkdir()
        save_model(folder / part / "model.safetensors", codec, "dct.pair", {}, part, 0.01)
    (folder / "pictures").mkdir()
    Image.fromarray(picture(0)).save(folder / "pictures/a.png")
    Image.fromarray(picture(1, 70, 50)).save(folder / "pictures/b.png")
    about = folder / "site/dct-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dct\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[distillkit]\ndct = tests.dct_pair\n")
    return folder


@pytest.fixture
def plugins():
    import tests.dct_pair

    return distillkit.load_plugins(dct=tests.dct_pair)


@pytest.mark.slow
def test_command(work):
    """The whole command, its memory in processes of their own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), str(work / "site")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "distillkit", "bench", "student"]
    options = ["--teacher", "teacher", "--data", "pictures", "--out", "out", "--repeats", "2", "--against", "jpeg"]
    done = subprocess.run([*command, *options], cwd=work, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    result = json.loads((work / "out/bench.json").read_text())
    teacher, student = result["models"]["teacher"], result["models"]["student"]
    for model in (teacher, student):
        assert set(model["latency"]["encode"]["parts"]) == {"analysis", "entropy networks", "coder", "file"}
        assert set(model["latency"]["decode"]["parts"]) == {"synthesis", "entropy networks", "coder", "file"}
        for direction in ("encode", "decode"):
            memory, latency = model["memory"][direction], model["latency"][direction]
            assert 5e7 < memory["loaded_bytes"] <= memory["peak_bytes"] < 5e9  # bytes, with Python and torch in them
            assert latency["num_runs"] == 4
            assert 0 < latency["total"]["lower_quartile"] <= latency["total"]["median"]
        assert sum(model["parameters_by_part"].values()) == model["num_parameters"]
    assert teacher["kmac_per_pixel"] == pytest.approx(student["kmac_per_pixel"] + 4 * 9 / 1000)  # four idle layers
    median = lambda model: model["latency"]["decode"]["total"]["median"]  # noqa: E731
    assert result["cuts"]["decode seconds"] == pytest.approx(1 - median(student) / median(teacher))
    assert result["cuts"]["analysis parameters"] == pytest.approx(1 - 37056 / (37056 + 2 * 12))
    assert [image["name"] for image in result["classical"]["jpeg"]["images"]] == ["a.png", "b.png"]
    assert (work / "out/bench.png").stat().st_size > 10_000
    for words in ("teacher", "cut", "synthesis", "kMAC/pixel", "JPEG", "2 of 2", "1 thread", "4:2:0"):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.fixture
def result(work, plugins, monkeypatch):
    monkeypatch.setattr(
        "distillkit.evaluation.speed.measure.measure_memory", lambda *_: None
    )  # as on systems without /proc
    images = sorted((work / "pictures").iterdir())
    against = ["jpeg", "webp"]
    return bench(work / "student", images, against=against, repeats=1, precision="fp32", plugins=plugins)


def test_classical_codecs_at_the_students_psnr(result, work):
    assert result.cuts() == {}  # without a teacher
    student = result.models["student"]
    assert student.precision == "fp32"
    jpeg = classical_codec("jpeg")
    for ours, theirs in zip(student.images, result.classical["jpeg"].images, strict=True):
        assert theirs.psnr_db == ours.psnr_db > 28
        with Image.open(work / "pictures" / ours.name) as opened:
            image = np.asarray(opened)
        rates, psnrs = [], []
        for quality in (theirs.quality - 1, theirs.quality):
            data = jpeg.encode(image, quality)
            rates.append(8 * len(data) / image[..., 0].size)
            psnrs.append(psnr_db(image, jpeg.decode(data)))
        assert psnrs[0] < ours.psnr_db <= psnrs[1]
        assert rates[0] <= theirs.rate_bpp <= rates[1]


def test_plot_and_words(result, tmp_path, monkeypatch):
    assert save_plot(result, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 1000
    words = "\n".join(notes(result))
    assert "2 pictures of 50x70, 84x60; 1 timed run of each codec on each" in words
    assert "WebP: libwebp" in words
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not save_plot(result, tmp_path / "none.png")


def test_a_missing_codec_is_left_out_with_a_word(work, plugins, monkeypatch):
    monkeypatch.setattr("distillkit.evaluation.speed.measure.measure_memory", lambda *_: None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    images = [work / "pictures/a.png"]
    result = bench(work / "student", images, against=["jpeg-xl"], repeats=1, plugins=plugins)
    assert result.classical == {}
    assert any(line.startswith("Left out: JPEG XL: not installed") for line in notes(result))


def test_matching_is_exact_and_says_where_it_cannot():
    image, jpeg = picture(3), classical_codec("jpeg")
    reached = psnr_db(image, jpeg.decode(jpeg.encode(image, 40)))
    match = match_psnr(jpeg, image, reached)
    assert match.quality <= 40  # two qualities may give the same pixels
    assert match.rate_bpp == pytest.approx(8 * len(jpeg.encode(image, match.quality)) / image[..., 0].size)
    assert match_psnr(jpeg, image, 5.0) is None  # its worst is better
    assert match_psnr(jpeg, image, 90.0) is None  # its best is worse
    between = match_psnr(jpeg, image, reached + 0.01)
    assert match.rate_bpp < between.rate_bpp


def test_first_calls_are_not_timed_and_codecs_take_turns():
    calls = []

    def coder(name):
        return Coder(lambda image: calls.append(f"{name} encode") or b"x", lambda data: calls.append(f"{name} decode"))

    coders = {name: coder(name) for name in "ab"}
    turns = {name: (coder, warm_up(coder, picture(0))) for name, coder in coders.items()}
    warm, calls[:] = calls[:], []
    assert warm == ["a encode", "a decode", "b encode", "b decode"]
    time_by_turns(turns, picture(0), 2)
    assert calls == 2 * warm
    assert len(turns["a"][1].runs["encode"]) == 2


def test_spread():
    assert Quartiles.of([3.0, 1.0, 2.0, 5.0, 4.0]) == Quartiles(3.0, 2.0, 4.0)
    assert Quartiles.of([7.0]) == Quartiles(7.0, 7.0, 7.0)
    latency = Latency.of([Run(2.0, {"transform": 1.5}), Run(4.0, {"transform": 2.5})], {"transform": "analysis"})
    assert latency.parts == {"analysis": Quartiles(2.0, 1.75, 2.25)}
    assert math.isclose(latency.total.median, 3.0)


def test_bad_input(work, plugins, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        bench(tmp_path / "none", [work / "pictures/a.png"], plugins=plugins)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be used"):
        bench(work / "student", [tmp_path / "bad.png"], plugins=plugins)
    with pytest.raises(DataError, match="expected at least one picture"):
        bench(work / "student", [], plugins=plugins)
