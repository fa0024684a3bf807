"""Light transforms in codecs that exist: what they read and write, and what training them costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from distillkit_models.light import LightPair
from distillkit_models.light_codec import Latents, LightCodec
from distillkit_models.light_net import replace_transform
from PIL import Image
from typer.testing import CliRunner

import distillkit
from distillkit.cli.app import app
from distillkit.codec.bitstream import VERSION
from distillkit.errors import DistillkitError, PairError, RecipeError
from distillkit.model.adapters import entropy_path

from ..golden.make import ARCHITECTURES, FOLDER, picture, unpacked

SIZE = {"width": 8, "blocks": 1}
KEPT = {"pair": "models.lowres", "options": {}, "part": "student", "lmbda": 0.1, "fingerprint": "0" * 32}


def train(folder: Path, kind: str, steps: int = 4, losses: dict | None = None, rd_weight: float = 1.0, **pair) -> Path:
    """Train a light transform of a golden codec, on two pictures; return the model's file."""
    teacher = unpacked(kind, folder)
    (folder / "photos").mkdir(exist_ok=True)
    for seed in (1, 2):
        Image.fromarray(picture(seed, 128, 128)).save(folder / "photos" / f"{seed}.png")
    recipe = distillkit.Recipe.create(
        pair={"name": "models.light", "teacher": str(teacher), **(pair or {"synthesis": SIZE})},
        lmbda=0.1,
        num_steps=steps,
        losses=losses or {},
        schedule={"name": "core.constant", "rd_weight": rd_weight},
        log_every=1,
        data={"train": str(folder / "photos"), "crop": 64, "batch_size": 2, "num_crops": 4},
        optimizer={"learning_rate": 1e-3},
    )
    return distillkit.train(recipe, folder / "run")


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("light")
    return train(folder, "checkerboard")


FRESH = """
import sys
from pathlib import Path
import numpy as np
import distillkit
codec = distillkit.ImageCodec(*(lambda model: (model.codec, model.fingerprint))(distillkit.load_model(sys.argv[1])))
np.save(sys.argv[3], codec.decode(Path(sys.argv[2]).read_bytes()))
"""


@pytest.mark.slow
def test_a_fresh_process_decodes_the_teachers_file(light, tmp_path):
    moved = light.rename(tmp_path / "light.safetensors")
    (light.parents[1] / "checkerboard.safetensors").unlink()  # a light model's file stands alone
    try:
        file, out = FOLDER / f"checkerboard-v{VERSION}.dk", tmp_path / "out.npy"
        command = [sys.executable, "-W", "ignore", "-c", FRESH, str(moved), str(file), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    finally:
        moved.rename(light)
    decoded = np.load(out)
    with Image.open(FOLDER / "checkerboard.png") as image:
        assert decoded.shape == np.asarray(image).shape
        assert (decoded != np.asarray(image)).any()


@pytest.mark.parametrize("version", [3, VERSION])
def test_the_command_line_decodes_files_of_every_version_and_refuses_foreign_ones(light, version, tmp_path):
    for kind, code in (("checkerboard", 0), ("mean-scale", 1)):
        arguments = ["decompress", str(FOLDER / f"{kind}-v{version}.dk"), str(tmp_path / f"{kind}.png")]
        done = CliRunner().invoke(app, [*arguments, "--model", str(light)])
        assert bool(done.exit_code) == bool(code), done.output
        assert (tmp_path / f"{kind}.png").exists() == (code == 0)
    assert "light decoder of that model" in " ".join(done.output.split())


def test_what_a_light_codec_writes_the_teacher_reads(light, tmp_path):
    teacher, student = distillkit.load_model(unpacked("checkerboard", tmp_path)), distillkit.load_model(light)
    codecs = [distillkit.ImageCodec(model.codec, model.fingerprint) for model in (teacher, student)]
    data = codecs[1].encode(picture())
    assert data[13:] == codecs[0].encode(picture())[13:-4] + data[-4:]  # but for the model's fingerprint and the CRC
    assert codecs[0].decode(data).std() > 30


def test_all_but_the_light_transform_stays(light, tmp_path):
    teacher, student = distillkit.load_model(unpacked("checkerboard", tmp_path)), distillkit.load_model(light)
    before, after = teacher.codec.module.state_dict(), student.codec.module.state_dict()
    kept = [name for name in after if not name.startswith("g_s.")]
    assert len(kept) == len([name for name in before if not name.startswith("g_s.")]) > 20
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert entropy_path(teacher.codec.module) == entropy_path(student.codec.module)
    assert student.codec.reads == (teacher.fingerprint,)
    assert student.lmbda == teacher.lmbda == 0.1


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_it_trains_on_what_the_file_decodes_to(kind, tmp_path):
    """With a serial context too, of which a forward pass gives something else."""
    model = distillkit.load_model(unpacked(kind, tmp_path))
    latents = Latents(distillkit.load_model(unpacked(kind, tmp_path)).codec)
    assert latents._forward_is_exact == (kind != "serial")
    pixels = picture(3, 128, 128)
    given = latents(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255)
    codec = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    seen = []
    codec._coder.adapter.module.g_s.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    codec.decode(codec.encode(pixels))
    difference = (given - seen[-1].float()).abs()
    assert given.abs().max() > 3
    assert (difference > 1e-3).float().mean() < 0.02  # a latent on the edge may round to either side


def test_the_encoder_runs_once_for_each_crop(tmp_path, monkeypatch):
    num_crops = []
    passed = Latents._passed

    def counted(self, images, coded, quality=None):
        num_crops.append(len(images))
        return passed(self, images, coded, quality)

    monkeypatch.setattr(Latents, "_passed", counted)
    train(tmp_path, "mean-scale", steps=6)  # of 2 crops, and 4 different ones
    # Both ways of getting latents are compared, the codec is tried, its borders are looked at; then two steps.
    assert num_crops == [1, 1, 1, 1, 2, 2]


def test_latents_are_kept_while_there_is_room(tmp_path, monkeypatch):
    latents = Latents(distillkit.load_model(unpacked("mean-scale", tmp_path)).codec)
    images = torch.rand(2, 3, 64, 64)
    first = latents(images)
    assert torch.equal(latents(images), first)
    assert len(latents._kept) == 2
    monkeypatch.setattr("distillkit_models.light_codec.MAX_BYTES", 1)
    assert latents(torch.rand(1, 3, 64, 64)).shape == (1, 8, 4, 4)
    assert len(latents._kept) == 2


def test_it_learns_and_losses_join(tmp_path):
    """The output loss and a feature loss of the synthesis move what MSE alone moves elsewhere."""
    output = {"kd.output": {}}
    runs = {"plain": {}, "output": output, "both": output | {"kd.attention_transfer": {"taps": ["synthesis.1/8"]}}}
    weights = []
    for name, losses in runs.items():
        (tmp_path / name).mkdir()
        model = distillkit.load_model(train(tmp_path / name, "mean-scale", losses=losses))
        weights.append(torch.cat([p.flatten() for p in model.codec.module.g_s.parameters()]))
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_a_light_encoder_writes_what_the_teacher_reads(tmp_path):
    file = train(tmp_path, "mean-scale", steps=20, losses={"kd.latent": {}}, analysis=SIZE)
    student, teacher = distillkit.load_model(file), distillkit.load_model(unpacked("mean-scale", tmp_path))
    changed = {
        name.partition(".")[0]
        for name, tensor in student.codec.module.state_dict().items()
        if name not in (state := teacher.codec.module.state_dict()) or not torch.equal(tensor, state[name])
    }
    assert changed == {"g_a"}
    data = distillkit.ImageCodec(student.codec, student.fingerprint).encode(picture())
    decoded = distillkit.ImageCodec(teacher.codec, teacher.fingerprint).decode(data)
    assert decoded.shape == picture().shape


def test_a_light_encoder_learns_from_the_teachers_latents_alone(tmp_path):
    """Rate and distortion are measured, and train nothing; the teacher decodes what it writes."""
    file = train(tmp_path, "mean-scale", steps=30, losses={"kd.latent": {}}, rd_weight=0.0, analysis=SIZE)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    errors = [line["loss/kd.latent"] for line in lines]
    assert sum(errors[-5:]) < 0.9 * sum(errors[:5])
    assert all(line["rd_cost"] > 0 for line in lines)
    teacher = distillkit.load_model(unpacked("mean-scale", tmp_path))
    ours, theirs = distillkit.load_codec(file), distillkit.ImageCodec(teacher)
    assert theirs.decode(ours.encode(picture(1, 64, 64))).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "x", "synthesis": SIZE, "analysis": SIZE}, "expected none beside a synthesis"),
        ({"teacher": "x", "codec": KEPT}, "codec: expected none beside a teacher"),
        ({"teacher": "x", "synthesis": {"width": 0}}, "greater than 0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(RecipeError, match=message):
        distillkit.load_plugins().configure("pair", "models.light", options, "recipe pair")


def test_a_teacher_that_is_not_there():
    pair = LightPair(LightPair.Config.model_validate({"teacher": "nowhere", "synthesis": SIZE}))
    with pytest.raises(DistillkitError, match="no such file"):
        pair.build_student()


def test_codecs_without_such_transforms_are_refused(tmp_path):
    codec = distillkit.load_model(unpacked("mean-scale", tmp_path)).codec
    codec.module.g_s, codec.module.decoder = None, codec.module.g_s
    with pytest.raises(PairError, match="expected transforms called g_a and g_s"):
        replace_transform(codec, "g_s", LightPair.Config.model_validate({"teacher": "x", "synthesis": SIZE}).synthesis)


def test_a_copy_shares_the_latents(tmp_path):
    from copy import deepcopy

    codec = distillkit.load_model(unpacked("mean-scale", tmp_path)).codec
    latents = Latents(distillkit.load_model(unpacked("mean-scale", tmp_path)).codec)
    copied = deepcopy(LightCodec(codec, (), (), latents))
    assert copied._latents is latents
    assert copied.module is not codec.module
