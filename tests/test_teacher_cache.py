"""The teacher's features on disk: the same to the bit, found again, checked, and never in a run's way."""

from __future__ import annotations

import logging
import shutil
from collections import namedtuple

import pytest
import torch
from accelerate.state import AcceleratorState

import distillkit
from distillkit.distributed import Ranks
from distillkit.errors import TapError, TrainingError
from distillkit.preemption import StopRequest
from distillkit.run_folder import RunFolder
from distillkit.setup import prepare
from distillkit.teacher_cache import TeacherCache
from distillkit.trainer import Trainer

from .test_checkpoint import full_disk
from .test_checkpoint import same as same_state
from .test_training import FEDS, Record, same, weights

PATHS = {"latent": "g_a.6", "analysis.1/2": "g_a.0"}


def train(r, folder, plugins):
    """Carry out a run; return its weights, the number of steps in which the teacher ran, and the notes."""
    r = r.resolve(plugins)
    run = RunFolder(folder)
    run.open(r)
    setup = prepare(r, plugins)
    calls = []
    trainer = Trainer(r, run, plugins, setup, Ranks(cpu=True))
    setup.pair.teacher.module.g_a[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        trainer.run(distillkit.RunInfo(folder.name, folder, r, 0, r.num_steps), StopRequest())
    finally:
        trainer.teacher.close()
        AcceleratorState._reset_state(reset_partial_state=True)
    return weights(run.model), len(calls), setup.notes


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_second_run_takes_everything_from_disk_and_ends_at_the_same_weights(
    recipe, teacher_file, tmp_path, plugins, precision
):
    live = recipe(losses=FEDS, teacher=teacher_file, precision=precision)
    expected, calls, _ = train(live, tmp_path / "live", plugins)
    assert calls == 8 + 1  # and once for the calibration
    cached = live.model_copy(update={"teacher_cache": settings(tmp_path)})
    first, calls, notes = train(cached, tmp_path / "first", plugins)
    assert calls == 8 + 1
    assert same(first, expected)
    files = list((tmp_path / "cache").glob("*.safetensors"))
    assert len(files) == 1
    assert notes[-1].startswith("teacher cache: ")
    second, calls, _ = train(cached, tmp_path / "second", plugins)
    assert calls == 1
    assert same(second, expected)
    # Another loss on the same crops finds its taps too; another precision or crops does not.
    other = cached.model_copy(update={"losses": {"feds.alignment": {"taps": ["latent"]}}})
    assert train(other, tmp_path / "other", plugins)[1] == 0
    another = "bf16" if precision == "fp32" else "fp32"
    assert train(other.model_copy(update={"precision": another}), tmp_path / "precision", plugins)[1] > 0
    assert train(other.model_copy(update={"seed": 5}), tmp_path / "seed", plugins)[1] > 0


def settings(folder, **taps):
    from distillkit.recipe import TeacherCacheSettings

    return TeacherCacheSettings(folder=folder / "cache", taps=taps)


def test_a_tap_that_stays_live_and_one_that_is_done_without(recipe, teacher_file, tmp_path, plugins):
    base = recipe(losses=FEDS, teacher=teacher_file)
    expected = train(base, tmp_path / "base", plugins)[0]
    live = base.model_copy(update={"teacher_cache": settings(tmp_path, **{"analysis.1/2": "live"})})
    train(live, tmp_path / "a", plugins)
    again, calls, _ = train(live, tmp_path / "b", plugins)
    assert same(again, expected)
    assert calls == 6 + 1  # the steps that align features, and the calibration
    skip = base.model_copy(update={"teacher_cache": settings(tmp_path, **{"analysis.1/2": "skip"})})
    setup = prepare(skip.resolve(plugins), plugins)
    assert "analysis.1/2" not in setup.task.term("feds.alignment").required_taps()
    assert len(setup.task.term("feds.alignment").required_taps()) > 2
    wrong = base.model_copy(update={"teacher_cache": settings(tmp_path, latnt="live")})
    with pytest.raises(TapError, match=r"teacher_cache.taps: no tap 'latnt' .*Did you mean 'latent'"):
        prepare(wrong.resolve(plugins), plugins)


def test_a_damaged_file_is_said_and_the_teacher_runs_again(recipe, teacher_file, tmp_path, plugins, caplog):
    r = recipe(losses=FEDS, teacher=teacher_file, teacher_cache={"folder": tmp_path / "cache"})
    expected = train(r, tmp_path / "first", plugins)[0]
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (tmp_path / "cache" / "other.safetensors").write_bytes(b"not a cache")
    with caplog.at_level(logging.WARNING, "distillkit"):
        got, calls, _ = train(r, tmp_path / "second", plugins)
    assert same(got, expected)
    assert calls > 1
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("damaged" in line for line in said)
    train(r, tmp_path / "third", plugins)  # stores what was read from that file before it was removed
    assert train(r, tmp_path / "fourth", plugins)[1] == 1


def test_it_says_its_size_before_it_writes(recipe, teacher_file, tmp_path, plugins, monkeypatch):
    r = recipe(losses=FEDS, teacher=teacher_file, precision="fp32", teacher_cache={"folder": tmp_path / "cache"})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 100))
    with pytest.raises(TrainingError, match=r"would take 0\.0 GiB, 0\.0 GiB are free. Set the widest taps to 'live'"):
        distillkit.train(r, tmp_path / "run", plugins=plugins)
    monkeypatch.undo()
    record = Record()
    sizes = []
    original = TeacherCache.check_room
    monkeypatch.setattr(TeacherCache, "check_room", lambda self, n: sizes.append(n) or original(self, n))
    distillkit.train(r, tmp_path / "run", plugins=plugins, observers=[record])
    assert record.events[0][3][-1].startswith("teacher cache: 0.0")
    written = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*"))
    assert sizes[0] <= written < 1.1 * sizes[0] + 10_000


def test_a_full_disk_costs_the_cache_not_the_run(tmp_path, caplog):
    cache = TeacherCache(tmp_path, ["a"], PATHS)
    key = cache.key(torch.rand(1, 3, 4, 4))
    cache.add(key, {"latent": torch.rand(1, 8, 64, 64)})
    with full_disk(4096), caplog.at_level(logging.WARNING, "distillkit"):
        cache.flush()
    assert "The run goes on without storing more" in caplog.records[0].getMessage()
    cache.add(key, {"latent": torch.rand(1, 8, 64, 64)})
    cache.flush()
    assert list(tmp_path.iterdir()) == []
    assert cache.read(key, ["latent"], torch.device("cpu")) is None


def test_a_folder_that_cannot_be_written(recipe, teacher_file, tmp_path, plugins):
    (tmp_path / "file").write_text("")
    r = recipe(losses=FEDS, teacher=teacher_file, teacher_cache={"folder": tmp_path / "file" / "cache"})
    with pytest.raises(TrainingError, match=r"teacher_cache.folder .*: cannot be written"):
        distillkit.train(r, tmp_path / "run", plugins=plugins)


def test_features_come_back_to_the_bit_with_their_order_in_memory(tmp_path):
    cache = TeacherCache(tmp_path, ["a"], PATHS)
    images = torch.rand(2, 3, 4, 4)
    stored = {
        "latent": torch.randn(2, 5, 3, 4).bfloat16(),
        "analysis.1/2": torch.randn(2, 3, 4, 5).permute(0, 3, 1, 2),
    }
    cache.add(cache.key(images), stored)
    assert same_state(cache.read(cache.key(images), PATHS, torch.device("cpu")), stored)
    cache.flush()
    again = TeacherCache(tmp_path, ["a"], PATHS)
    for reader in (cache, again):
        assert same_state(reader.read(reader.key(images), PATHS, torch.device("cpu")), stored)
    assert again.read(again.key(images + 1e-6), PATHS, torch.device("cpu")) is None
    other = TeacherCache(tmp_path, ["b"], PATHS)
    assert other.read(other.key(images), PATHS, torch.device("cpu")) is None
