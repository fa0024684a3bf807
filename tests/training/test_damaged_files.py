"""Small files that others may write: indexes, records and recipes of wrong shapes are bounded, clear errors."""

from __future__ import annotations

import json
import os

import pytest

from distillkit.data.shards import list_training_images, pack
from distillkit.errors import DataError, RecipeError
from distillkit.recipe.recipe import Recipe
from distillkit.training.observers import MetricsFile
from distillkit.training.run_info import RunInfo


@pytest.mark.parametrize("shard", ["../secret.tar", "{outside}/secret.tar", "", 7, None])
@pytest.mark.parametrize("offset", [0, -1, 10**12, "0", 10**30])
def test_an_index_names_nothing_outside_its_shards(photographs, tmp_path, shard, offset):
    if shard == "" and offset == 0:
        shard = "shard-000001.tar"
    pack(photographs, tmp_path / "shards", num_workers=1)
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
