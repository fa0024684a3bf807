"""What docs/ms-ssim.md, docs/step-extension.md and docs/rates.md show trains, as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

import distillkit
import distillkit.testing

DOCS = Path(__file__).parents[2] / "docs"
TEACHER = {"trains": "teacher", "schedule": {"name": "core.constant"}}


def examples(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def plugin_of(page: str) -> ModuleType:
    """Return the page's Python as the plugin that it would be."""
    (code,) = examples(page, "python")
    module = ModuleType("mine")
    exec(code, module.__dict__)
    return module


@pytest.fixture
def here(tmp_path, photographs, monkeypatch) -> Path:
    """A folder with the photographs of the pages, large enough for MS-SSIM."""
    for name in ("photos", "held-out"):
        (tmp_path / name).mkdir()
        for path in photographs.iterdir():
            with Image.open(path) as picture:
                picture.resize((256, 192)).save(tmp_path / name / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(here, plugins, recipe):
    def run(values: dict, plugins=plugins, **changes) -> list[dict]:
        distillkit.train(recipe(**TEACHER | {"log_every": 1} | values | changes), here / "run", plugins=plugins)
        return [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]

    return run


def test_a_run_for_ms_ssim(train):
    (block,) = examples("ms-ssim.md", "toml")
    values = tomllib.loads(block)
    (line,) = train(values | {"data": values["data"] | {"batch_size": 1}}, num_steps=1)
    assert line["rd_cost"] == pytest.approx(16.64 * 10 ** (-line["ms_ssim_db"] / 10) + line["rate_bpp"], rel=0.02)


def test_the_objectives_of_the_page_are_those_that_ship(plugins):
    table = (DOCS / "ms-ssim.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted(plugins.components["objective"])


def test_an_objective_of_your_own(train):
    import tests.small_pair

    plugins = distillkit.load_plugins(small=tests.small_pair, mine=plugin_of("ms-ssim.md"))
    (line,) = train({"objective": {"name": "mine.absolute"}, "lmbda": 0.5}, plugins, num_steps=1)
    assert line["rd_cost"] > line["rate_bpp"]


def test_a_step_extension_of_your_own(train):
    import tests.small_pair

    mine = plugin_of("step-extension.md")
    distillkit.testing.check_step_extension(mine.HalvedGradients)
    plugins = distillkit.load_plugins(small=tests.small_pair, mine=mine)
    assert len(train({"extensions": {"mine.halved_gradients": {}}}, plugins, num_steps=2)) == 2


def test_the_mean_of_the_weights_mask_decay_and_validation(train, plugins):
    ema, decay, validation = map(tomllib.loads, examples("step-extension.md", "toml"))
    lines = train(ema | {"validation": validation["validation"] | {"every": 2, "crops": 2}}, num_steps=2)
    assert lines[-1]["validation/rd_cost"] > 0
    shutil.copytree("run", "runs/teacher")
    shutil.rmtree("run")
    train(decay, trains="student", num_steps=2)
    assert distillkit.load_model(Path("run/model.safetensors"), plugins).part == "student"


def test_one_model_for_all_rates(train):
    """From the model that ships, as the page says."""
    rates, start, together, *_ = map(tomllib.loads, examples("rates.md", "toml"))
    data = {"data": {"train": "photos", "crop": 64, "batch_size": 2}, "num_steps": 1}
    train(rates | start, **data)
    lmbda = distillkit.load_model(Path("run/model.safetensors")).lmbda
    assert (lmbda.low, lmbda.high) == (0.0018, 0.0483)
    recipe = distillkit.Recipe.create(pair=rates["pair"], **data, **together)
    assert len(recipe.teachers) == 3
    assert not any("teacher" in options for options in recipe.losses.values())


def test_a_codec_that_takes_a_quality():
    (code,) = examples("rates.md", "python")
    torch.manual_seed(0)
    names = {"images": torch.rand(2, 3, 64, 64), "quality": torch.tensor([0.0, 1.0])}
    exec(code, names)
    assert names["output"].x_hat.shape == (2, 3, 64, 64)
    assert not torch.equal(names["output"].x_hat, names["codec"].forward(names["images"], 0.5).x_hat)
