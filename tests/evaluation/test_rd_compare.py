"""`distillkit compare`: models, results, published curves and classical codecs beside one another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from distillkit.cli.app import app
from distillkit.data.images import read_image
from distillkit.data.listing import list_images
from distillkit.errors import DataError
from distillkit.evaluation.classical import classical_codec
from distillkit.evaluation.classical_curve import classical_curve
from distillkit.evaluation.curve import RDCurve, RDPoint, read_curve
from distillkit.evaluation.quality import psnr_db
from distillkit.evaluation.rd_compare import compare_curves, gather_curves
from distillkit.evaluation.rd_tables import bd_notes, bd_table, points_table
from distillkit.evaluation.results import Evaluation, ImageResult

LMBDAS = (0.0035, 0.0067, 0.013, 0.025)


def evaluation(lmbda: float, factor: float, pictures=("a", "b", "c")) -> Evaluation:
    """As if measured: rate grows with lambda, and with the factor."""
    images = []
    for number, name in enumerate(pictures):
        rate = factor * (1 + number / 10) * 40 * lmbda
        psnr = 26 + number + 10 * (lmbda / 0.0035) ** 0.5
        size = {"width": 200, "height": 200, "file_bytes": round(rate * 5000)}
        cost = lmbda * 255**2 * 10 ** (-psnr / 10) + rate
        measured = {"rate_bpp": rate, "estimated_bpp": rate, "psnr_db": psnr, "ms_ssim": 0.9, "ms_ssim_db": 10.0}
        times = {"encode_seconds": 0.1, "decode_seconds": 0.2}
        images.append(ImageResult(name=name, source=Path(f"{name}.png"), **size, **measured, **times, rd_cost=cost))
    return Evaluation("0" * 32, lmbda, tuple(images), environment={"distillkit": "0", "system": "test"})


@pytest.fixture
def measured(tmp_path) -> Path:
    """Evaluations of two codecs at four lambdas, in folders named as a family names its jobs."""
    for name, factor in (("control", 1.0), ("feds", 0.9)):
        for lmbda in LMBDAS:
            folder = tmp_path / "evaluation" / f"{name}-{lmbda:g}-seed0"
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(evaluation(lmbda, factor).to_json())
    return tmp_path / "evaluation"


def text_of(*tables) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in tables:
        console.print(table)
    console.file.close()
    return console.export_text()


def test_models_that_differ_in_lambda_are_one_curve(measured, tmp_path):
    curves = gather_curves([measured], tmp_path / "out")
    assert [curve.name for curve in curves] == ["control-seed0", "feds-seed0"]
    assert all(curve.lmbdas == LMBDAS for curve in curves)
    comparison = compare_curves(curves)
    (result,) = comparison.bd  # the pictures' MS-SSIM is the same at each lambda
    assert result.rate_percent == pytest.approx(-10)
    assert result.interval == pytest.approx((-10, -10))
    assert (result.num_images, result.test_lmbdas) == (3, LMBDAS)
    assert "expected quality to rise with rate, got ms-ssim" in comparison.refused["feds-seed0", "ms-ssim"]
    gains = comparison.at_equal_lmbda(curves[1])
    for gain, lmbda in zip(gains, LMBDAS, strict=True):
        own, other = (evaluation(lmbda, factor).averages["rd_cost"] for factor in (0.9, 1.0))
        assert gain == pytest.approx(own / other - 1)
    again = read_curve(tmp_path / "out" / "curves" / "feds-seed0.json")
    assert again.points == curves[1].points
    assert again.per_image == curves[1].per_image


def test_every_figure_says_what_it_stands_on(measured, tmp_path):
    comparison = compare_curves(gather_curves([measured], tmp_path / "out"), "control-seed0")
    text = text_of(points_table(comparison), bd_table(comparison.bd)) + "\n".join(bd_notes(comparison))
    for expected in (
        "BD-rate against control-seed0",
        "PCHIP",
        "Akima",
        "cubic",
        "-10.00",
        "-10.00 to -10.00",
        "100%",
        "anchor control-seed0: 4 points, lambdas 0.0035, 0.0067, 0.013, 0.025; distillkit 0, system test.",
        "interval by bootstrap over 3 pictures; bjontegaard 1.",
        "No figure. BD-rate of feds-seed0",
    ):
        assert expected in text, expected


def test_one_lambda_gives_costs_and_says_why_there_is_no_bd_rate(measured, tmp_path):
    curves = gather_curves(sorted(measured.glob("*-0.013-*")), tmp_path / "out")
    comparison = compare_curves(curves)
    assert comparison.bd == ()
    (gain,) = comparison.at_equal_lmbda(curves[1])
    assert gain < 0
    notes = "\n".join(bd_notes(comparison))
    assert (
        notes == "No figure. BD-rates need at least 4 points of a curve and of its anchor, control-seed0; got 1 of "
        "control-seed0, 1 of feds-seed0: train at more lambdas, and until then compare RD costs at equal lambda."
    )
    assert f"{gain:+.1%}" in text_of(points_table(comparison))


@pytest.mark.slow
def test_a_trained_model_and_jpeg_on_the_same_pictures(teacher_file, photographs, plugins, tmp_path):
    run = tmp_path / "teacher-0.013"
    run.mkdir()
    shutil.copy(teacher_file, run / "model.safetensors")
    images = list_images(photographs)
    seen = []
    model, jpeg = gather_curves(
        [run], tmp_path / "out", images=images, classical=["jpeg"], plugins=plugins, on_codec=seen.append
    )
    assert seen == ["teacher-0.013", "JPEG"]
    assert (model.name, model.lmbdas, jpeg.name) == ("teacher", (0.013,), "JPEG")
    assert model.per_image.keys() == jpeg.per_image.keys() == {"0", "1", "2"}
    content = json.loads((tmp_path / "out" / "teacher-0.013" / "results.json").read_text())
    assert content["decoded_in"] == "fresh"
    assert model.points[0].rate_bpp == content["averages"]["rate_bpp"]
    comparison = compare_curves([model, jpeg], "JPEG")
    assert "got 1 of teacher" in comparison.refused["teacher", "psnr"]


def test_the_curve_of_jpeg(photographs):
    images, codec = list_images(photographs), classical_codec("jpeg")
    curve = classical_curve(codec, images, [30, 60, 90])
    pictures = [read_image(path) for path in images]
    files = [codec.encode(picture, 60) for picture in pictures]
    rates = [8 * len(file) / (96 * 128) for file in files]
    qualities = [psnr_db(picture, codec.decode(file)) for picture, file in zip(pictures, files, strict=True)]
    assert curve.points[1].rate_bpp == pytest.approx(sum(rates) / 3)
    assert curve.points[1].psnr_db == pytest.approx(sum(qualities) / 3)
    assert [curve.per_image[name][1].psnr_db for name in ("0", "1", "2")] == qualities
    assert curve.points[1].encode_seconds > 0
    assert "qualities 30, 60, 90" in curve.source
    assert codec.version in curve.source
    whole = classical_curve(codec, images)
    assert len(whole.points) == 8
    (result,) = compare_curves([whole, RDCurve("same", whole.points, whole.per_image)]).bd
    assert (result.rate_percent, result.interval) == (pytest.approx(0), pytest.approx((0, 0)))


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        (["empty"], {}, "expected a run folder or results of an evaluation, or a folder of these"),
        (["nowhere.json"], {}, "nowhere.json: cannot be read"),
        (["nowhere"], {}, "or a folder of these, got nothing there; check the path"),
        ([], {"classical": ["jpeg"]}, "expected pictures to measure jpeg on, got none; name a folder with --data"),
        (["evaluation", "evaluation"], {}, "curve control-seed0: expected one model for each lambda, got lambdas"),
    ],
)
def test_what_cannot_be_compared_is_said(sources, options, message, measured, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        gather_curves([tmp_path / source for source in sources], tmp_path / "out", **options)
    assert message in str(error.value)


def test_names_of_curves():
    curve = RDCurve("mine", (RDPoint(0.1, 30),))
    with pytest.raises(DataError, match="Did you mean 'mine'"):
        compare_curves([curve], "mien")
    with pytest.raises(DataError, match="distinct names, got 'mine' twice"):
        compare_curves([curve, curve])
    with pytest.raises(DataError, match="at least one curve"):
        compare_curves([])


def test_the_anchor_may_be_one_of_the_sources(measured, tmp_path):
    control, feds = (str(measured / f"{name}-0.013-seed0") for name in ("control", "feds"))
    for arguments in ([feds, control, "--anchor", control], [feds, "--anchor", f"{control}/results.json"]):
        arguments = ["compare", *arguments, "--out", str(tmp_path / "out"), "--json"]
        content = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
        assert content["anchor"] == "control-seed0"
        assert {curve["name"] for curve in content["curves"]} == {"control-seed0", "feds-seed0"}


def test_a_metric_that_a_curve_lacks_is_left_out():
    points = [RDPoint(0.1 * n, None, 0.9 + 0.01 * n) for n in range(1, 5)]
    whole = RDCurve("whole", tuple(RDPoint(p.rate_bpp, 25 + 2 * n, p.ms_ssim) for n, p in enumerate(points)))
    only_psnr = RDCurve("only-psnr", tuple(RDPoint(p.rate_bpp, 25 + 2 * n) for n, p in enumerate(points)))
    comparison = compare_curves([whole, RDCurve("only-ms-ssim", tuple(points)), only_psnr])
    assert [(result.test, result.metric) for result in comparison.bd] == [
        ("only-ms-ssim", "ms-ssim"),
        ("only-psnr", "psnr"),
    ]
    assert not comparison.refused
    nothing = compare_curves([only_psnr, RDCurve("only-ms-ssim", tuple(points))])
    assert "expected a finite psnr at every point of only-ms-ssim" in nothing.refused["only-ms-ssim", "psnr"]


def test_columns_without_a_figure_are_left_out_and_names_stay_whole():
    points = tuple(RDPoint(0.1 * n, 25.0 + 2 * n, encode_seconds=0.0056, decode_seconds=120.0) for n in range(1, 5))
    curves = [RDCurve(name, points) for name in ("cheng2020-anchor", "mbt2018-mean")]
    comparison = compare_curves(curves)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(points_table(comparison), bd_table(comparison.bd))
    console.file.close()
    text = console.export_text()
    assert all(word not in text for word in ("lambda", "MS-SSIM", "cost", "interval", "\N{HORIZONTAL ELLIPSIS}"))
    assert text.count("cheng2020-anchor") == 2  # as the anchor of the second table, too
    assert " 0.006 " in text
    assert " 120 " in text


def test_the_command(measured, tmp_path):
    points = tuple(RDPoint(40 * lmbda, 27 + 10 * (lmbda / 0.0035) ** 0.5) for lmbda in LMBDAS)
    RDCurve("published", points).save(tmp_path / "published.json")
    arguments = ["compare", str(measured), "--anchor", str(tmp_path / "published.json"), "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "120"}).stdout
    assert "BD-rate against published" in shown
    assert "anchor published: 4 points, lambdas not given; published.json." in shown
    content = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert content["anchor"] == "published"
    assert [curve["name"] for curve in content["curves"]] == ["published", "control-seed0", "feds-seed0"]
    figures = {row["test"]: row["rate_percent"] for row in content["bd"]}
    assert figures["feds-seed0"] < figures["control-seed0"]
    assert all(row["interval"] is None for row in content["bd"])
