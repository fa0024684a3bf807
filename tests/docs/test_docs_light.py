"""docs/light-decoders.md: its recipe trains, and its commands decode a file of the teacher."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from distillkit.cli.app import app

from ..golden.make import FOLDER, picture, unpacked

PAGE = Path(__file__).parents[2] / "docs" / "light-decoders.md"


def test_the_page_makes_old_files_decode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```toml\n# light.toml\n(.*?)```", text, flags=re.DOTALL)
    for key, value in (("lmbda", "0.1"), ("num_steps", "2"), ("crop", "64"), ("num_crops", "2"), ("warmup_steps", "1")):
        recipe = re.sub(rf"(?m)^{key} = \S+", f"{key} = {value}", recipe)
    Path("light.toml").write_text(recipe)
    Path("photos").mkdir()
    Image.fromarray(picture(1)).save("photos/1.png")
    Path("runs/teacher").mkdir(parents=True)
    shutil.move(unpacked("mean-scale", tmp_path), "runs/teacher/model.safetensors")
    shutil.copy(FOLDER / "mean-scale-v3.dk", "photo.dk")
    for line in "".join(re.findall(r"(?<!-->\n)```sh\n(.*?)```", text, flags=re.DOTALL)).splitlines():
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
    with Image.open("back.png") as image:
        assert np.asarray(image).shape == picture().shape
