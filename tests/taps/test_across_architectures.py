"""FEDS within transformers and across architectures: the three phases run unchanged, and what cannot match is said."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import distillkit
from distillkit.errors import PairError, RecipeError

FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}
ROOT = Path(__file__).parents[2]


def distil(recipe, folder, plugins, teacher, student, losses=FEDS):
    data = {"train": recipe().data.train, "crop": 64, "batch_size": 1}
    first = recipe(pair=teacher, trains="teacher", num_steps=1, schedule={"name": "core.constant"}, data=data)
    model = distillkit.train(first, folder / "teacher", plugins=plugins)
    second = recipe(pair=student, losses=losses, teacher=model, num_steps=5, log_every=1, data=data)
    distillkit.train(second, folder / "student", plugins=plugins)
    return [json.loads(line) for line in (folder / "student" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student"),
    [("models.swin", "models.swin"), ("models.swin", "models.cheng2020"), ("models.cheng2020", "models.swin")],
)
def test_three_phases(teacher, student, recipe, tmp_path, plugins):
    rows = distil(recipe, tmp_path, plugins, {"name": teacher}, {"name": student})
    assert [row["phase"] for row in rows] == ["align", "align", "channel", "channel", "finetune"]
    assert rows[0]["loss/feds.alignment"] > 0
    assert rows[2]["loss/feds.channel_entropy"] > 0
    assert not any(key.startswith("loss/") for key in rows[-1])


def test_another_latent_width_is_an_error_that_says_what_to_choose(recipe, tmp_path, plugins):
    wide = {"name": "models.compressai", "student": {"N": 8, "M": 96}}
    with pytest.raises(
        RecipeError, match=r"at most 64 channels \(the teacher's\), got 96. Narrow the student's latent"
    ):
        distil(recipe, tmp_path, plugins, {"name": "models.swin"}, wide)


def test_another_stride_is_an_error_that_says_what_to_choose(recipe, tmp_path, monkeypatch):
    import tests.foreign_codecs as foreign
    import tests.small_pair

    plugins = distillkit.load_plugins(small=tests.small_pair, foreign=foreign)
    monkeypatch.setattr(foreign.SequencePair, "build_student", lambda self: foreign.Sequence(12, stages=3))
    with pytest.raises(
        PairError, match=r"latents of one resolution, got 4x4 from the teacher and 8x8 from the student"
    ):
        distil(recipe, tmp_path, plugins, {"name": "small.pair"}, {"name": "foreign.sequence"})


@pytest.mark.slow
def test_the_transformer_example(tmp_path, monkeypatch, photographs, capsys):
    """The example itself on small settings: everything but the number of steps."""
    script = ROOT / "examples" / "feds_transformer.py"
    source = script.read_text(encoding="utf-8").replace("(1500, 900, 4)", "(2, 5, 1)")
    assert "(2, 5, 1)" in source
    (tmp_path / "example.py").write_text(source, encoding="utf-8")
    larger = tmp_path / "pictures"
    larger.mkdir()
    from PIL import Image

    for path in photographs.iterdir():
        Image.open(path).resize((192, 160)).save(larger / path.name)
    command = ["example.py", "--data", str(larger), "--student", "models.cheng2020", "--out", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(tmp_path / "example.py"), run_name="__main__")
    assert "control" in capsys.readouterr().out
    assert (tmp_path / "runs" / "student" / "model.safetensors").exists()


class TestCustomPair:
    SCRIPT = ROOT / "examples" / "custom_pair.py"

    def test_it_is_short(self):
        assert len(self.SCRIPT.read_text(encoding="utf-8").splitlines()) <= 40

    @pytest.mark.slow
    def test_as_a_script(self, tmp_path, photographs):
        from PIL import Image

        for folder in ("train", "test"):
            (tmp_path / folder).mkdir()
            for path in photographs.iterdir():
                Image.open(path).resize((192, 160)).save(tmp_path / folder / path.name)
        source = self.SCRIPT.read_text(encoding="utf-8").replace('"num_steps": 600', '"num_steps": 3')
        assert '"num_steps": 3' in source
        (tmp_path / "script.py").write_text(source, encoding="utf-8")
        command = [sys.executable, "-W", "ignore", "script.py", "train", "test"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert "student" in done.stdout
        assert (tmp_path / "runs/mine/student/model.safetensors").exists()

    @pytest.mark.slow
    def test_as_an_installed_plugin(self, tmp_path):
        """The same file as a package: with the lines of docs/pairs.md, `distillkit pairs` knows it."""
        import re

        text = (ROOT / "docs" / "pairs.md").read_text(encoding="utf-8")
        (project,) = re.findall(r"```toml\n(\[build-system\].*?)```", text, flags=re.DOTALL)
        package = tmp_path / "package"
        package.mkdir()
        (package / "pyproject.toml").write_text(project, encoding="utf-8")
        (package / "custom_pair.py").write_text(self.SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*pip, "--target", str(tmp_path / "site"), str(package)], check=True, timeout=200)
        code = "import distillkit; print(distillkit.load_plugins().get('pair', 'mine.pair', 'test').__name__)"
        import os

        paths = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
            timeout=200,
        )
        assert done.stdout.strip() == "MyPair", done.stderr
