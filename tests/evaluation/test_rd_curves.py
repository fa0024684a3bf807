"""Curves from and to files, and BD-rates: known figures, hand-made cases, refusals."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distillkit.errors import DataError
from distillkit.evaluation.bd import BDRefusedError, bd_rate
from distillkit.evaluation.curve import RDCurve, RDPoint, curve_from_results, read_curve

ANCHORS = Path(__file__).parents[3] / "shared" / "anchors" / "kodak"
needs_anchors = pytest.mark.skipif(not ANCHORS.is_dir(), reason="published curves are not part of the repository")

RATES, QUALITIES = (0.12, 0.25, 0.5, 0.9, 1.4), (27.0, 29.1, 31.6, 34.0, 36.2)


def curve(name="anchor", rates=RATES, qualities=QUALITIES, **values):
    points = tuple(RDPoint(rate, quality) for rate, quality in zip(rates, qualities, strict=True))
    return RDCurve(name, points, **values)


@needs_anchors
@pytest.mark.parametrize(
    ("name", "expected"),
    [("compressai-cheng2020-anchor_mse_cpu", 3.7), ("compressai-mbt2018-mean_mse_cpu", 21.3)],
)
def test_known_figures_against_vtm(name, expected):
    result = bd_rate(read_curve(ANCHORS / "vtm.json"), read_curve(ANCHORS / f"{name}.json"))
    assert result.rate_percent == pytest.approx(expected, abs=0.05)
    assert result.others.keys() == {"akima", "cubic"}
    assert all(value == pytest.approx(expected, abs=0.3) for value in result.others.values())
    assert result.overlap == 1
    assert result.psnr_db < 0
    assert result.interval is None  # published curves have no single pictures
    assert (result.anchor, result.anchor_source, result.metric) == ("VTM", "vtm.json: VTM", "psnr")
    assert result.version.startswith("bjontegaard 1.")


@needs_anchors
def test_every_published_curve_is_read():
    files = sorted(ANCHORS.glob("*.json"))
    assert len(files) > 30
    curves = {file.stem: read_curve(file) for file in files}
    assert all(len(each.points) >= 4 for each in curves.values())
    falling = curves["jpeg2000"]  # the file goes from high rates to low ones
    assert falling.points[0].rate_bpp < falling.points[-1].rate_bpp
    only_decibels = curves["paper-elic2022_ms-ssim"]
    assert only_decibels.points[0].psnr_db is None
    assert only_decibels.points[0].ms_ssim_db == pytest.approx(11.593, abs=1e-3)
    with pytest.raises(BDRefusedError, match=r"expected a finite psnr at every point of elic2022"):
        bd_rate(curves["vtm"], only_decibels)
    assert bd_rate(curves["vtm"], only_decibels, metric="ms-ssim").rate_percent < 0


@pytest.mark.parametrize("method", ["pchip", "akima", "cubic"])
def test_ten_percent_more_rate_is_ten_percent(method):
    result = bd_rate(curve(), curve("test", [1.1 * rate for rate in RATES]), method)
    assert result.rate_percent == pytest.approx(10)
    assert list(result.others.values()) == pytest.approx([10, 10])
    assert (result.overlap, result.quality_range_db) == (1, (27.0, 36.2))
    assert (result.num_points, result.interval) == ((5, 5), None)
    assert json.loads(json.dumps(result.to_dict()))["rate_percent"] == result.rate_percent


def test_half_a_decibel_more_is_half_a_decibel():
    result = bd_rate(curve(), curve("test", qualities=[quality + 0.5 for quality in QUALITIES]))
    assert result.psnr_db == pytest.approx(0.5)
    assert result.rate_percent < 0
    assert result.overlap == pytest.approx((36.2 - 27.5) / (36.2 - 27.0))


def with_pictures(name, factors):
    """The same curve for every picture, its rate times the picture's factor."""
    pictures = {
        f"picture{number}": tuple(RDPoint(factor * r, q) for r, q in zip(RATES, QUALITIES, strict=True))
        for number, factor in enumerate(factors)
    }
    mean = float(np.mean(factors))
    return curve(name, [mean * rate for rate in RATES], per_image=pictures)


def test_the_interval_over_pictures():
    anchor = with_pictures("anchor", [1.0] * 20)
    same = bd_rate(anchor, with_pictures("test", [1.1] * 20))
    assert same.interval == pytest.approx((10, 10))
    factors = np.random.default_rng(1).normal(1.1, 0.1, 20)
    spread = bd_rate(anchor, with_pictures("test", factors))
    low, high = spread.interval
    assert low < spread.rate_percent < high
    # rates are scaled by the mean factor: its standard error is that of the BD-rate
    error = 100 * factors.std() / math.sqrt(20)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)
    assert spread.num_images == 20
    assert bd_rate(anchor, with_pictures("test", factors)).interval == spread.interval


def test_pictures_drawn_for_both_are_the_same():
    factors = [0.5, 1.0, 2.0, 4.0]  # pictures differ a lot, codecs by a constant
    result = bd_rate(with_pictures("a", factors), with_pictures("b", [1.2 * factor for factor in factors]))
    assert result.interval == pytest.approx((20, 20))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (curve("few", RATES[:3], QUALITIES[:3]), "expected at least 4 points of each, got 3 of few; train it at more"),
        (curve("falls", qualities=(27, 29, 28.9, 34, 36)), "expected quality to rise with rate, got psnr 27.00"),
        (curve("far", qualities=(33, 34, 36, 38, 41)), "share at least 50% of the shorter quality range, got 40%"),
        (curve("exact", qualities=(27, 29, 30, 34, math.inf)), "expected a finite psnr at every point of exact"),
    ],
)
def test_what_means_nothing_is_refused(test, message):
    for anchor, other in ((curve(), test), (test, curve())):
        with pytest.raises(BDRefusedError) as error:
            bd_rate(anchor, other)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"results": {"bpp": [0, 1], "psnr": [20, 30]}}, "expected bits per pixel above 0 at every point, got [0, 1]"),
        ({"results": {"bpp": [None, 1], "psnr": [20, 30]}}, "expected bits per pixel above 0 at every point"),
        ({"results": {"bpp": [1], "psnr": [30]}, "images": ["a"]}, "lists of each picture by its name under 'images'"),
        ({"averages": {"rate_bpp": 1.0}, "images": [1], "lmbda": 0.013}, "as `distillkit evaluate` writes them"),
    ],
)
def test_a_file_of_another_shape_is_said(content, message, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read_curve(tmp_path / "a.json")
    assert message in str(error.value)


def test_other_pictures_are_refused():
    with pytest.raises(BDRefusedError, match="expected both on the same pictures, got 4 and 3, of which picture3"):
        bd_rate(with_pictures("a", [1, 1, 1, 1]), with_pictures("b", [1, 1, 1]))


def test_a_file_gives_back_the_curve(tmp_path):
    points = tuple(RDPoint(r, q, 1 - r / 9, 0.01 * r, 0.1, 0.2) for r, q in zip(RATES, QUALITIES, strict=True))
    written = RDCurve("mine", points[::-1], {"a/1": points[::-1], "b": points[::-1]}, "a test")
    assert written.points == points
    written.save(tmp_path / "deep" / "mine.json")
    read = read_curve(tmp_path / "deep" / "mine.json")
    assert (read.points, read.per_image) == (written.points, written.per_image)
    assert (read.name, read.source) == ("mine", "mine.json: a test")
    content = json.loads((tmp_path / "deep" / "mine.json").read_text())
    assert content["results"]["ms-ssim-rgb"] == [point.ms_ssim for point in points]


@pytest.mark.parametrize(
    "columns",
    [
        {"bpp": [0.1, 0.2], "psnr": [30, 31], "ms-ssim": [10.0, 20.0]},
        {"bpp": [0.1, 0.2], "psnr-rgb": [30, 31], "ms-ssim-rgb": [0.9, 0.99]},
        {"bpp": [0.2, 0.1], "psnr_db": [31, 30], "ms-ssim-db-rgb": [20.0, 10.0]},
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_keys_of_other_tools(columns, wrapped, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"results": columns} if wrapped else columns))
    read = read_curve(file)
    assert read.name == "other"
    assert [point.psnr_db for point in read.points] == [30, 31]
    assert [point.ms_ssim for point in read.points] == pytest.approx([0.9, 0.99])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "expected JSON"),
        ("[1]", "expected a JSON object, got list"),
        ('{"results": 3}', "expected lists by name under 'results', got int"),
        ('{"results": {"psnr": [30]}}', "expected a list 'bpp', got 'psnr'"),
        ('{"results": {"bpp": [0.1], "vmaf": [90]}}', "expected a list 'psnr-rgb' or 'ms-ssim-rgb', got 'bpp', 'vmaf'"),
        ('{"results": {"bpp": [0.1, 0.2], "psnr": [30]}}', "expected 2 values of psnr_db, as of bpp, got 1"),
        ('{"results": {"bpp": ["a"], "psnr": [30]}}', "expected finite numbers in 'bpp'"),
        ('{"results": {"bpp": [0.1], "psnr": [NaN]}}', "expected finite numbers in 'psnr'"),
    ],
)
def test_files_that_hold_no_curve(text, message, tmp_path):
    file = tmp_path / "bad.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError) as error:
        read_curve(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_models_on_other_pictures_make_no_curve():
    def result(*names):
        row = {"rate_bpp": 0.1, "psnr_db": 30.0, "ms_ssim": None}
        return {"lmbda": 0.01, "averages": row, "images": [{"name": name, **row} for name in names]}

    assert curve_from_results("mine", [result("a", "b")]).per_image.keys() == {"a", "b"}
    with pytest.raises(DataError, match=r"on the same pictures, got 2 \(a, b\) and 1 \(a\)"):
        curve_from_results("mine", [result("a", "b"), result("a")])


@pytest.mark.slow
def test_compressai_plots_it(tmp_path):
    points = tuple(RDPoint(r, q, 1 - 0.1 / r) for r, q in zip(RATES, QUALITIES, strict=True))
    RDCurve("mine", points, {"a": points}, "a test").save(tmp_path / "mine.json")
    plot = "import sys; from compressai.utils.plot.__main__ import main; [main(call.split()) for call in sys.argv[1:]]"
    calls = [f"-f mine.json -m {metric} -o {metric}.png" for metric in ("psnr", "ms-ssim")]
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", plot, *calls]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"{metric}.png").stat().st_size > 10_000 for metric in ("psnr", "ms-ssim"))
