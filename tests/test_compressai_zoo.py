"""CompressAI's own codecs: every architecture taught and teaching, weights from files, and back into CompressAI."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import distillkit
from distillkit.errors import PairError, RecipeError
from distillkit.export.export import export_model

FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}
SMALL = {
    "bmshj2018-factorized": {"N": 8, "M": 16},
    "bmshj2018-hyperprior": {"N": 8, "M": 16},
    "mbt2018-mean": {"N": 8, "M": 16},
    "mbt2018": {"N": 8, "M": 16},
    "cheng2020-anchor": {"N": 16},
    "cheng2020-attn": {"N": 16},
    "cheng2020-anchor-checkerboard": {"N": 16},
    "elic2022-official": {"N": 8, "groups": [4, 12]},
    "elic2022-chandelier": {"N": 8, "groups": [4, 4, 8]},
}


def pair(**options):
    _, config = distillkit.load_plugins().configure("pair", "models.compressai", options, "test")
    return distillkit.load_plugins().get("pair", "models.compressai", "test")(config)


def small(architecture):
    return {"architecture": architecture, **SMALL[architecture]}


def distil(recipe, folder, plugins, teacher, student, num_steps=5):
    options = {"name": "models.compressai", "teacher": teacher, "student": student}
    first = recipe(pair=options, trains="teacher", num_steps=1, schedule={"name": "core.constant"})
    model = distillkit.train(first, folder / "teacher", plugins=plugins)
    second = recipe(pair=options, losses=FEDS, teacher=model, num_steps=num_steps)
    return distillkit.load_model(distillkit.train(second, folder / "student", plugins=plugins), plugins)


@pytest.mark.parametrize("architecture", SMALL)
def test_every_architecture_goes_through_the_three_phases_and_codes(architecture, recipe, tmp_path, plugins):
    codec = small(architecture)
    model = distil(recipe, tmp_path, plugins, codec, codec)
    provider = plugins.get("taps", "models.by_resolution", "test")
    taps = distillkit.find_taps(model.codec, provider(provider.Config()), (64, 64))
    assert {"analysis.1/2", "analysis.1/4", "analysis.1/8", "latent", "synthesis.1/2", "reconstruction"} <= set(taps)
    picture = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    coder = distillkit.ImageCodec(model.codec, model.fingerprint)
    data = coder.encode(picture)
    assert np.array_equal(coder.decode(data), distillkit.ImageCodec(model.codec, model.fingerprint).decode(data))


def test_elic_teaches_a_checkerboard(recipe, tmp_path, plugins):
    student = small("cheng2020-anchor-checkerboard")
    model = distil(recipe, tmp_path, plugins, small("elic2022-official"), student)
    assert type(model.codec.module).__name__ == "Cheng2020AnchorCheckerboard"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
@pytest.mark.parametrize("architecture", ["mbt2018-mean", "cheng2020-anchor-checkerboard", "elic2022-chandelier"])
def test_weights_from_a_file_with_sizes_inferred(architecture, suffix, tmp_path):
    torch.manual_seed(0)
    source = pair(teacher=small(architecture)).build_teacher()
    source.update()  # tables in the file have sizes of their own
    path = tmp_path / f"weights{suffix}"
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}  # as data parallelism leaves it
    save_file(state, path) if suffix == ".safetensors" else torch.save({"epoch": 3, "state_dict": state}, path)
    built = pair(teacher={"architecture": architecture, "weights": path})
    assert built.pretrained_teacher
    loaded = built.build_teacher().state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.state_dict().items())


def test_a_teacher_from_a_file_needs_no_training(recipe, tmp_path, plugins):
    torch.manual_seed(0)
    torch.save(pair().build_teacher().state_dict(), tmp_path / "teacher.pth")
    options = {"name": "models.compressai", "teacher": {"weights": tmp_path / "teacher.pth", "lmbda": 0.013}}
    distillkit.train(recipe(pair=options, losses=FEDS, num_steps=3), tmp_path / "run", plugins=plugins)
    (tmp_path / "teacher.pth").unlink()
    distillkit.load_model(tmp_path / "run", plugins)  # the student is deployed without its teacher
    with pytest.raises(PairError, match=r"trained for lmbda 0.013, this run is for 0.05"):
        distillkit.train(recipe(pair=options, losses=FEDS, lmbda=0.05), tmp_path / "other", plugins=plugins)


class TestWhatIsWrongIsSaid:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"student": {"architecture": "mbt2018-men"}}, "expected 'bmshj2018-factorized'"),
            ({"student": {"architecture": "cheng2020-anchor", "M": 5}}, "cheng2020-anchor has as many latent channels"),
            (
                {"student": {"architecture": "cheng2020-attn", "quality": 7}},
                "has qualities 1 to 6, got 7",
            ),
            ({"student": {"architecture": "elic2022-official", "quality": 1}}, "no qualities; give N and M"),
            ({"student": {"architecture": "elic2022-official", "N": 8, "M": 16}}, "expected groups for M = 16"),
            ({"student": {"groups": [3, 4]}}, "expected no groups"),
            ({"teacher": {"pretrained": True}}, "expected a quality, and no N, M or weights"),
            ({"student": {"pretrained": True}}, "unknown key"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(RecipeError) as error:
            pair(**options)
        assert message in str(error.value)

    def test_missing_sizes(self):
        with pytest.raises(PairError, match="mbt2018: expected a quality or its sizes, got N = 8, M = None"):
            pair(student={"architecture": "mbt2018", "N": 8}).build_student()

    def test_files(self, tmp_path):
        def load(content, name="weights.pth", **options):
            if content is not None:
                torch.save(content, tmp_path / name)
            return pair(teacher={"weights": tmp_path / name, **options}).build_teacher()

        with pytest.raises(PairError, match="no such file"):
            load(None)
        with pytest.raises(PairError, match="it holds more than weights, and reading that could run code"):
            load({"state_dict": {"a": Image.new("RGB", (1, 1))}})
        with pytest.raises(PairError, match="expected a state dict"):
            load([1, 2])
        with pytest.raises(PairError, match="got none named g_a.0"):
            load({"a": torch.zeros(1)})
        state = pair().build_teacher().state_dict()
        with pytest.raises(PairError, match="expected N = 5, got 24; correct the recipe"):
            load(state, N=5)
        with pytest.raises(PairError, match="expected the weights of mbt2018, got others.*another architecture"):
            load(state, architecture="mbt2018")
        (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
        with pytest.raises(PairError, match="cannot be read"):
            load(None, "bad.safetensors")


@pytest.mark.parametrize("quality", [1, 4])
def test_qualities_have_the_zoos_sizes(quality):
    from compressai.zoo import mbt2018_mean

    built = pair(student={"architecture": "mbt2018-mean", "quality": quality}).build_student()
    expected = {name: tensor.shape for name, tensor in mbt2018_mean(quality).state_dict().items()}
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == expected


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    import compressai.zoo.image

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(compressai.zoo.image, "load_state_dict_from_url", refuse)
    built = pair(teacher={"architecture": "mbt2018-mean", "quality": 4, "pretrained": True})
    assert built.teacher_lmbda == 0.013
    with pytest.raises(PairError, match="mbt2018-mean, quality 4: its weights could not be downloaded .no network"):
        built.build_teacher()


def test_compressai_itself_measures_the_same(recipe, tmp_path, plugins):
    """The exported student in plain CompressAI: its own evaluation reports the bpp and PSNR that ours does."""
    model = distil(recipe, tmp_path, plugins, {"N": 12, "M": 16}, {"N": 8, "M": 16}, num_steps=20)
    export_model(model, "compressai", tmp_path / "student.pth.tar")
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(2):
        picture = np.kron(random.integers(0, 256, (12, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")  # 192x256: no padding on either side
    command = [sys.executable, "-W", "ignore", "-m", "compressai.utils.eval_model", "checkpoint", str(folder)]
    command += ["-a", "mbt2018-mean", "-p", str(tmp_path / "student.pth.tar")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(re.search(r"\{.*\}", done.stdout, re.DOTALL)[0])["results"]
    coder = distillkit.ImageCodec(model.codec, model.fingerprint)
    ours = distillkit.evaluate(coder, sorted(folder.iterdir()), tmp_path / "out", model.lmbda).averages
    (psnr,) = theirs.get("psnr-rgb") or theirs["psnr"]
    assert ours["psnr_db"] == pytest.approx(psnr, abs=0.01)  # theirs of floats, ours of 8-bit pixels
    container = 8 * 40 / (192 * 256)  # our file's header, and what another entropy coder rounds off
    assert 0 <= ours["rate_bpp"] - theirs["bpp"][0] < container
