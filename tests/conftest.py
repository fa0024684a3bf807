from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import distillkit
from distillkit.family.plan import Family, plan
from distillkit.report.page import write_page
from distillkit.testing.pytest_plugin import draw_photographs

from .small_pair import SmallPair

# Files of few, long tests are the first that the workers take, or one of them would be alone with the last.
LONG = (
    "test_distributed.py",
    "test_export.py",
    "test_check.py",
    "test_experiment.py",
    "test_fuzz.py",
    "test_family.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def plugins():
    import tests.small_pair

    return distillkit.load_plugins(small=tests.small_pair)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Three smooth colourful pictures with edges, 96x128."""
    return draw_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory, photographs) -> Path:
    """The same pictures upside down."""
    folder = tmp_path_factory.mktemp("held-out")
    for path in photographs.iterdir():
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / path.name)
    return folder


@pytest.fixture(scope="session")
def recipe(photographs):
    def build(**changes):
        values = {
            "pair": {"name": "small.pair"},
            "num_steps": 10,
            "data": {"train": photographs, "crop": 64, "batch_size": 2},
            "schedule": {"name": "feds.staged"},
            "optimizer": {"name": "soap", "learning_rate": 1e-3, "rate_schedule": "cosine", "warmup_steps": 2},
            "device": "cpu",
            "log_every": 3,
            "checkpoint_every": 5,
        }
        return distillkit.Recipe.create(**(values | changes))

    return build


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory, photographs):
    import tests.small_pair

    plugins = distillkit.load_plugins(small=tests.small_pair)
    teacher = distillkit.Recipe.create(
        trains="teacher",
        pair={"name": "small.pair"},
        num_steps=2,
        data={"train": photographs, "crop": 64, "batch_size": 2},
        device="cpu",
    )
    return distillkit.train(teacher, tmp_path_factory.mktemp("teacher") / "run", plugins=plugins)


@pytest.fixture(scope="session")
def trained_plugins():
    import tests.small_pair

    return distillkit.load_plugins(small=tests.small_pair)


@pytest.fixture(scope="session")
def trained_family(photographs, tmp_path_factory, trained_plugins) -> Path:
    """A family as it comes out of training: a teacher, control and feds with two seeds, a few steps each."""
    recipe = {"pair": {"name": "small.pair"}, "num_steps": 5, "checkpoint_every": 5, "log_every": 1, "device": "cpu"}
    recipe["data"] = {"train": photographs, "crop": 64, "batch_size": 2}
    losses = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 4}}
    family = Family.create(
        test=photographs,
        seeds=[0, 1],
        teacher=recipe,
        student=recipe | {"schedule": {"name": "feds.staged"}},
        variants={"control": {}, "feds": {"losses": losses}},
    )
    folder = tmp_path_factory.mktemp("family") / "small"
    images = sorted(photographs.iterdir())
    for job in plan(family, folder):
        model = distillkit.train(job.recipe, folder / job.name, plugins=trained_plugins)
        trained = distillkit.load_model(model, trained_plugins)
        codec = distillkit.ImageCodec(trained.codec, trained.fingerprint)
        distillkit.evaluate(codec, images, folder / "evaluation" / job.name, trained.lmbda)
    return folder


@pytest.fixture(scope="session")
def family_page(trained_family, trained_plugins, tmp_path_factory) -> Path:
    """The page of that family."""
    return write_page(trained_family, tmp_path_factory.mktemp("page") / "sub" / "page.html", plugins=trained_plugins)


__all__ = ["SmallPair"]
