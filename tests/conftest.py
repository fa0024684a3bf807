from __future__ import annotations

from pathlib import Path

import pytest
import torch

import distillkit
from distillkit.pytest_plugin import draw_photographs

from .small_pair import SmallPair


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


@pytest.fixture
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


__all__ = ["SmallPair"]
