"""Codecs of grey and of four bands of 12 bits: through training, evaluation, the page, and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

import distillkit
import distillkit.testing
import tests.habits
from distillkit.cli.app import app
from distillkit.data.stored import write_picture
from distillkit.errors import BitstreamError, DataError, PairError, RecipeError
from distillkit.evaluation.classical import classical_codec
from distillkit.evaluation.classical_curve import classical_curve
from distillkit.model.file import save_model
from distillkit.report.page import write_page
from tests.habits import HABITS, HabitPair

KINDS = ("grey", "bands")


def waves(samples, number=0, height=100, width=120):
    rows, columns = np.mgrid[:height, :width]
    bands = [
        np.sin((columns + 9 * band) / (7 + number)) + np.cos(rows / (9 + band)) for band in range(samples.channels)
    ]
    return (samples.peak * (np.stack(bands, -1) + 2) / 4).round().astype(samples.dtype)


@pytest.fixture(scope="module")
def habit_plugins():
    return distillkit.load_plugins(habits=tests.habits)


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """The name of a kind, its samples, and a folder of pictures: a PNG where there can be one, a TIFF, a .npy file."""
    samples = HABITS[request.param].samples
    folder = tmp_path_factory.mktemp(request.param)
    for number, suffix in enumerate((samples.suffix, ".tif", ".npy")):
        write_picture(folder / f"{number}{suffix}", waves(samples, number), suffix)
    return request.param, samples, folder


@pytest.fixture(scope="module")
def model(kind, tmp_path_factory):
    codec = HabitPair(HabitPair.Config(habit=kind[0])).build_student()
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, codec, "habits.pair", {"habit": kind[0]}, "student", 0.01)
    return path


@pytest.mark.slow
def test_a_whole_distillation_with_its_page(kind, tmp_path, habit_plugins):
    name, samples, folder = kind
    common = {"pair": {"name": "habits.pair", "habit": name}, "device": "cpu", "log_every": 1, "precision": "fp32"}
    common["data"] = {"train": folder, "crop": 64, "batch_size": 2}
    teacher = distillkit.Recipe.create(**common, trains="teacher", num_steps=2)
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    images = [held_out / f"a{samples.suffix}"]
    write_picture(images[0], waves(samples, 5), samples.suffix)
    losses = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}
    validation = {"data": held_out, "every": 2, "crops": 2}
    student = distillkit.Recipe.create(**common, num_steps=4, losses=losses, validation=validation)
    done = distillkit.distil_recipes(teacher, student, tmp_path / "job", images, plugins=habit_plugins, observers=list)
    rows = [json.loads(line) for line in (tmp_path / "job/student/metrics.jsonl").read_text().splitlines()]
    assert all(row["loss/feds.alignment"] > 0 for row in rows if "loss/feds.alignment" in row)
    for measured in done.models:
        decoded = distillkit.read_image(done.folder / measured.name / f"a{samples.suffix}", samples=samples)
        error = np.mean((decoded.astype(float) - waves(samples, 5)) ** 2) / samples.peak**2
        (result,) = measured.evaluation.images
        assert result.psnr_db == pytest.approx(-10 * np.log10(error))
        assert result.rd_cost == pytest.approx(0.013 * 255**2 * error + result.rate_bpp)
    page = write_page(tmp_path / "job/student", tmp_path / "page.html", plugins=habit_plugins).read_text()
    assert f"The pictures have {samples}" in page
    assert "data:image/webp" in page
    with Image.open(done.folder / "comparison.png") as sheet:
        assert sheet.mode == "RGB"


@pytest.mark.slow
def test_files_there_and_back(kind, model, tmp_path, monkeypatch):
    name, samples, folder = kind
    about = tmp_path / "site/habits-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: habits\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[distillkit]\nhabits = tests.habits\n")
    monkeypatch.syspath_prepend(about.parent)

    def run(*arguments, code=0):
        done = CliRunner().invoke(app, [*map(str, arguments), "--model", str(model)])
        assert done.exit_code == code, done.output
        return done.output

    run("compress", folder, tmp_path / "out")
    run("decompress", tmp_path / "out", tmp_path / "back")
    codec = distillkit.load_codec(model)
    for number in range(3):
        data = (tmp_path / f"out/{number}.dk").read_bytes()
        assert data == codec.encode(waves(samples, number))
        decoded = codec.decode(data)
        assert (decoded.dtype, decoded.shape) == (samples.dtype, waves(samples).shape)
        back = tmp_path / f"back/{number}{samples.suffix}"
        assert np.array_equal(distillkit.read_image(back, samples=samples), decoded)
    for other in ("x.npy", "x.tiff"):
        run("decompress", tmp_path / "out/0.dk", tmp_path / other)
        assert np.array_equal(
            distillkit.read_image(tmp_path / other, samples=samples), codec.decode(codec.encode(waves(samples)))
        )
    assert np.array_equal(
        np.load(tmp_path / "x.npy"), tifffile.imread(tmp_path / "x.tiff").reshape(waves(samples).shape)
    )
    Image.fromarray(np.zeros((70, 80, 3), np.uint8)).save(tmp_path / "rgb.png")
    said = run("compress", tmp_path / "rgb.png", code=2)
    assert f"expected {samples}" in said
    if name == "grey":
        assert "--convert" in said
        run("compress", tmp_path / "rgb.png", "--convert")


def test_what_a_screen_shows():
    grey, bands = (HABITS[name].samples for name in KINDS)
    assert grey.preview(np.array([[[7]]], np.uint8)).tolist() == [[[7, 7, 7]]]
    assert bands.preview(np.array([[[0, 2048, 4095, 9]]], np.uint16)).tolist() == [[[0, 128, 255]]]


def test_what_cannot_be_says_so(kind, model, tmp_path, habit_plugins):
    name, samples, folder = kind
    images = [path for path in sorted(folder.iterdir()) if path.suffix == samples.suffix][:1]
    with pytest.raises(DataError, match="JPEG: it codes only 8-bit RGB here"):
        classical_curve(classical_codec("jpeg"), images)
    trained = distillkit.load_model(model, habit_plugins)
    codec = distillkit.ImageCodec(trained)

    class Distance:
        name, min_side = "lpips", 1

    with pytest.raises(DataError, match=f"LPIPS is for 8-bit RGB only, and the codec's pictures have {samples}"):
        distillkit.evaluate(codec, images, tmp_path / "e", 0.01, perceptual=[Distance()])
    with pytest.raises(ValueError, match="image: expected"):
        codec.encode(np.zeros((64, 64, 3), np.uint8))
    other = {"grey": "bands", "bands": "grey"}[name]
    build = HabitPair(HabitPair.Config(habit=other)).build_student
    with pytest.raises(PairError, match="expected two codecs of the same pictures"):
        distillkit.bind(trained.codec, build(), (64, 64))
    apart = tmp_path / "other.safetensors"
    save_model(apart, build(), "habits.pair", {"habit": other}, "student", 0.01)
    with pytest.raises(DataError, match="expected models of the same pictures"):
        distillkit.compare({"a": model, "b": apart}, images, tmp_path / "c", plugins=habit_plugins)
    foreign = build()
    foreign.update()
    foreign = distillkit.ImageCodec(foreign, trained.fingerprint)
    with pytest.raises(BitstreamError, match="expected"):
        foreign.decode(codec.encode(waves(samples)))


def test_an_objective_of_rgb_alone(kind, tmp_path):
    """LPIPS's own weights are not here; whatever says that it looks at RGB is refused."""
    name, samples, folder = kind

    class Red(distillkit.Objective):
        """D = 255^2 times the mean squared error of red."""

        needs_rgb = True

        def distortion(self, x_hat, images):
            """Return it."""
            return 255**2 * (x_hat - images)[:, 0].square().mean(dim=(1, 2))

    class Plugin:
        @staticmethod
        @distillkit.hookimpl
        def register_objectives(register):
            register("red", Red)

    plugins = distillkit.load_plugins(habits=tests.habits, own=Plugin)
    recipe = distillkit.Recipe.create(
        pair={"name": "habits.pair", "habit": name},
        data={"train": folder, "crop": 64, "batch_size": 1},
        objective={"name": "own.red"},
        lmbda=0.01,
        trains="teacher",
        num_steps=1,
    )
    with pytest.raises(RecipeError, match=f"own.red looks at red, green and blue.* have {samples}"):
        distillkit.train(recipe, tmp_path / "run", plugins=plugins)
