"""Small files that others may write: indexes, records and recipes of wrong shapes are bounded, clear errors."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

import distillkit
from distillkit.data.shards import list_training_images, pack
from distillkit.errors import CheckpointError, DataError, DistillkitError, RecipeError
from distillkit.evaluation.curve import read_curve
from distillkit.export.driver import ExportedCodec
from distillkit.family.record import read_record
from distillkit.family.run import _read
from distillkit.model.tensors import write_tensors
from distillkit.recipe.recipe import Recipe
from distillkit.training.folder.checkpoint import load_checkpoint
from distillkit.training.observers import MetricsFile
from distillkit.training.result import _measured
from distillkit.training.run_info import RunInfo
from tests.training.test_training import FEDS, Interrupt, StopAfter


@pytest.fixture(scope="module")
def packed(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "shards"
    pack(photographs, folder, num_workers=1)
    return folder


@pytest.mark.parametrize("shard", ["../secret.tar", "{outside}/secret.tar", "", 7, None])
@pytest.mark.parametrize("offset", [0, -1, 10**12, "0", 10**30])
def test_an_index_names_nothing_outside_its_shards(packed, tmp_path, shard, offset):
    if shard == "" and offset == 0:
        shard = "shard-000001.tar"
    shutil.copytree(packed, tmp_path / "shards")
    (tmp_path / "secret.tar").write_bytes(bytes(100))
    file = tmp_path / "shards" / "index.json"
    index = json.loads(file.read_text())
    name = shard.format(outside=tmp_path) if isinstance(shard, str) else shard
    index["images"][0][0], index["images"][0][2] = name, offset
    file.write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"index\.json: damaged"):
        list_training_images(tmp_path / "shards")


def test_lines_of_metrics_that_are_none_are_dropped(recipe, tmp_path):
    good = json.dumps({"step": 1})
    lines = [good, "[]", "{}", '{"step": "1"}', "null", "[" * 100_000, '{"step": 9}', '{"st', '{"step": null}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    MetricsFile().run_started(RunInfo("run", tmp_path, recipe(), 2, 10))
    assert (tmp_path / "metrics.jsonl").read_text() == good + "\n"


@pytest.fixture(scope="module")
def calibrated(recipe, teacher_file, trained_plugins, tmp_path_factory):
    """A run of FEDS that was interrupted once its ranking was measured, and the recipe."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    r = recipe(losses=FEDS, teacher=teacher_file, checkpoint_every=1)
    with pytest.raises(Interrupt):
        distillkit.train(r, folder, plugins=trained_plugins, observers=[StopAfter(6)])
    return folder, r


WRONG = {
    "nothing": lambda stored: b"",
    "half": lambda stored: json.dumps(stored).encode()[:40],
    "not text": lambda stored: b"\xff\xfe\x00",
    "null": lambda stored: b"null",
    "a list": lambda stored: b"[]",
    "deep": lambda stored: b"[" * 100_000,
    "no record": lambda stored: {key: value for key, value in stored.items() if key != "record"},
    "a record of text": lambda stored: stored | {"record": "x"},
    "bits of text": lambda stored: stored | {"record": {"bits_per_pixel": "x"}},
    "bits that are none": lambda stored: stored | {"record": {"bits_per_pixel": [None] * 16}},
    "too few bits": lambda stored: stored | {"record": {"bits_per_pixel": [1.0] * 15}},
    "negative bits": lambda stored: stored | {"record": {"bits_per_pixel": [-1.0] * 16}},
    "too many rows": lambda stored: stored | {"record": {"bits_per_pixel": [[1.0] * 16] * 2}},
    "nested bits": lambda stored: stored | {"record": {"bits_per_pixel": [[[1.0]] * 16]}},
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_calibration_of_a_wrong_shape_is_measured_again(calibrated, trained_plugins, tmp_path, kind):
    folder, r = calibrated
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    file = run / "calibration" / "feds.channel_entropy.json"
    stored = json.loads(file.read_text())
    content = WRONG[kind](stored)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(Interrupt):
        distillkit.train(r, run, plugins=trained_plugins, observers=[StopAfter(7)])
    assert json.loads(file.read_text()) == stored


def test_a_recipe_that_is_no_file_or_has_no_end(tmp_path):
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "long.toml").write_text("#" * (2 << 20))
    for file in ("/dev/zero", tmp_path / "fifo.toml", tmp_path):
        with pytest.raises(RecipeError, match="expected a file, got a folder or device"):
            Recipe.load(file)
    with pytest.raises(RecipeError, match="nested too deeply"):
        Recipe.load(tmp_path / "deep.toml")
    with pytest.raises(RecipeError, match="expected at most 1048576 bytes"):
        Recipe.load(tmp_path / "long.toml")


JSON = [b"", b"null", b"[]", b"{}", b'"x"', b"7", b"{", b"[" * 100_000, b"\xff\xfe", b'{"images": [], "lmbda": 1}']
STATES = [
    *('{"dict": 3}', '{"dict": [[[], 1]]}', '{"dict": [["step", {"tensor": ["9", [0]]}]]}', '{"x": 1, "y": 2}'),
    *('{"tensor": []}', '{"tensor": ["0", [5, 1]]}', '{"tuple": 3}', '{"tuple": [1, 2]}'),
]


@pytest.mark.parametrize("text", [content.decode("latin-1") for content in JSON] + STATES)
def test_a_checkpoint_or_model_with_metadata_of_a_wrong_shape(tmp_path, text):
    """As one that somebody else wrote, with a checksum that is sound."""
    file = tmp_path / "step-00000001.safetensors"
    write_tensors(file, {"0": torch.zeros(2)}, {"format": "distillkit-checkpoint-1", "state": text})
    if text == "[]":
        assert load_checkpoint(file) == {}
    else:
        with pytest.raises(CheckpointError, match="expected the state of a run, got .*; remove it"):
            load_checkpoint(file)
    write_tensors(file, {"0": torch.zeros(2)}, {"validation": text})
    assert _measured(file) is None


@pytest.mark.parametrize("content", JSON)
def test_results_of_a_wrong_shape(tmp_path, content):
    file = tmp_path / "results.json"
    file.write_bytes(content)
    for read in (read_curve, read_record, _read):
        with pytest.raises(DataError, match=r"results\.json"):
            read(file)
    file.write_text('{"format": "distillkit-family-1", "jobs": [{}]}')
    with pytest.raises(DataError, match="damaged"):
        read_record(file)
    (tmp_path / "codec.json").write_bytes(content)
    with pytest.raises(DistillkitError, match=r"export .* export the model again"):
        ExportedCodec(tmp_path)
