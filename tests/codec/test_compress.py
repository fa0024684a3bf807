"""`distillkit compress` and `decompress`: pictures of every kind, folders, nothing overwritten or half done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import distillkit
from distillkit.cli.app import app
from distillkit.cli.sources import plan_files, split_target
from distillkit.codec import folder
from distillkit.codec.files import whole_file
from distillkit.errors import DataError
from distillkit.model.file import save_model
from tests.lively import adapter, picture


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, adapter("checkerboard"), "models.cheng2020", {"size": "tiny"}, "student", 0.013)
    return path


@pytest.fixture
def run(model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments, code=0):
        try:
            done = CliRunner().invoke(app, [*map(str, arguments), "--model", str(model)], catch_exceptions=False)
        except distillkit.DistillkitError as error:
            assert code == 2
            return str(error)
        assert done.exit_code == code, done.output
        return done.output

    return invoke


def save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path, **options)
    return path


class TestCommands:
    def test_a_file_there_and_back(self, run, model, tmp_path):
        source = save(tmp_path / "photo.png")
        assert "150x100" in run("compress", source)
        data = (tmp_path / "photo.dk").read_bytes()
        loaded = distillkit.load_model(model)
        codec = distillkit.ImageCodec(loaded.codec, loaded.fingerprint)
        assert codec.encode(picture()) == data
        run("decompress", tmp_path / "photo.dk", tmp_path / "back.png")
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back.png")), codec.decode(data))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["back.png", "photo.dk", "photo.png"]

    @pytest.mark.slow
    def test_a_folder_on_all_cores_with_one_bad_file(self, run, model, tmp_path, monkeypatch):
        for name in ("a.png", "b/c.png", "b/d.png", "b/e.png", "b/f.png", "b/g.png"):
            save(tmp_path / "in" / name)
        (tmp_path / "in/broken.png").write_bytes(b"\x89PNG")
        monkeypatch.setattr(folder, "_num_cores", lambda: 2)
        monkeypatch.setattr(folder, "_WORTH_SECONDS", 0.0)
        started, pool = [], folder.start_pool
        monkeypatch.setattr(folder, "start_pool", lambda *args: started.append(args[0]) or pool(*args))
        output = run("compress", tmp_path / "in", tmp_path / "out", "--json", code=2)
        assert "image" in output
        assert "broken.png: expected a picture (AVIF, BMP" in output
        made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
        assert made == ["a.dk", "b/c.dk", "b/d.dk", "b/e.dk", "b/f.dk", "b/g.dk"]
        assert started == [1]  # beside this process
        alone = run("compress", tmp_path / "in/a.png", "--json")
        assert json.loads(alone)[0]["compressed_bytes"] == (tmp_path / "out/a.dk").stat().st_size
        assert (tmp_path / "in/a.dk").read_bytes() == (tmp_path / "out/a.dk").read_bytes()

    def test_damaged_files_leave_nothing(self, run, tmp_path):
        run("compress", save(tmp_path / "photo.png"))
        data = bytearray((tmp_path / "photo.dk").read_bytes())
        data[60] ^= 1
        (tmp_path / "photo.dk").write_bytes(data)
        (tmp_path / "photo.png").unlink()
        assert "expected CRC-32" in run("decompress", tmp_path / "photo.dk", code=2)
        assert [path.name for path in tmp_path.iterdir()] == ["photo.dk"]

    def test_an_original_is_never_overwritten(self, run, tmp_path):
        source = save(tmp_path / "photo.png")
        before = source.read_bytes()
        run("compress", source)
        assert "photo.png: exists already" in run("decompress", tmp_path / "photo.dk", code=2)
        assert source.read_bytes() == before
        assert "exists already" in run("compress", source, code=2)
        run("compress", source, "--overwrite")

    def test_limits(self, run, tmp_path):
        run("compress", save(tmp_path / "photo.png"))
        output = run("decompress", tmp_path / "photo.dk", tmp_path / "x.png", "--max-pixels", "10000", code=2)
        assert "at most 10000 pixels, got 150x100" in output

    @pytest.mark.slow
    def test_without_a_traceback(self, model, tmp_path):
        """As a process, with warnings as errors."""
        save(tmp_path / "alpha.png", np.zeros((8, 8, 4), np.uint8))
        command = [sys.executable, "-W", "error", "-m", "distillkit", "compress", "alpha.png", "--model", str(model)]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"COLUMNS": "300"}, timeout=200
        )
        assert done.returncode == 2
        assert done.stderr.startswith("distillkit: error: image alpha.png: expected 8-bit RGB, got RGB with alpha")
        assert "--convert" in done.stderr
        assert "Traceback" not in done.stderr

    def test_several_files_there_and_back(self, run, tmp_path):
        """As a shell hands over `a.png b.png c.png out/` and `out/*.dk back/`, and `*.png` alone."""
        sources = [save(tmp_path / f"{name}.png") for name in "abc"]
        rows = json.loads(run("compress", *sources, f"{tmp_path}/out/", "--json"))
        assert [row["target"] for row in rows] == [f"{tmp_path}/out/{name}.dk" for name in "abc"]
        run("decompress", *sorted((tmp_path / "out").iterdir()), tmp_path / "back")
        assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a.png", "b.png", "c.png"]
        run("compress", *sources)
        assert all((tmp_path / f"{name}.dk").is_file() for name in "abc")

    def test_a_suffix_that_is_missing_is_added(self, run, tmp_path):
        run("compress", save(tmp_path / "a.png"), tmp_path / "new")
        assert (tmp_path / "new.dk").is_file()
        run("decompress", tmp_path / "new.dk", tmp_path / "back-0.013")
        assert (tmp_path / "back-0.013.png").is_file()
        assert "expected a name that ends in .png, got x.jpg; that is what is written" in run(
            "decompress", tmp_path / "new.dk", tmp_path / "x.jpg", code=2
        )


class TestPlan:
    def test_several_sources(self, tmp_path):
        first, second = save(tmp_path / "one/a.png"), save(tmp_path / "two/a.png")
        folders = [tmp_path / "one", tmp_path / "two"]
        out = tmp_path / "out"
        assert plan_files("compress", folders, out, False) == [(first, out / "one/a.dk"), (second, out / "two/a.dk")]
        assert plan_files("compress", [first], f"{out}/", False) == [(first, out / "a.dk")]
        with pytest.raises(DataError, match=r"two/a.png: would go to .*out/a.dk, as .*one/a.png does"):
            plan_files("compress", [first, second], out, False)
        with pytest.raises(DataError, match="expected a folder for several files, got .*x.dk; name a folder last"):
            plan_files("compress", [first, second], tmp_path / "x.dk", False)
        assert split_target("compress", [str(first), str(second)]) == ([first, second], None)
        assert split_target("compress", [str(first), "b.png"]) == ([first], "b.png")
        assert split_target("decompress", ["a.dk", "b.png"]) == ([Path("a.dk")], "b.png")

    def test_names(self, tmp_path):
        source = save(tmp_path / "a/photo.jpg")
        (tmp_path / "out").mkdir()
        assert plan_files("compress", [source], None, False) == [(source, tmp_path / "a/photo.dk")]
        assert plan_files("compress", [source], tmp_path / "x.dk", False) == [(source, tmp_path / "x.dk")]
        assert plan_files("compress", [source], tmp_path / "out", False) == [(source, tmp_path / "out/photo.dk")]
        assert plan_files("compress", [tmp_path], tmp_path / "new", False) == [(source, tmp_path / "new/a/photo.dk")]

    def test_what_is_wrong(self, tmp_path):
        source = save(tmp_path / "photo.png")
        with pytest.raises(DataError, match=r"ends in .dk, got x.png"):
            plan_files("compress", [source], tmp_path / "x.png", False)
        with pytest.raises(DataError, match="got nothing there"):
            plan_files("compress", [tmp_path / "no.png"], None, False)
        with pytest.raises(DataError, match=r"end in .dk, got none"):
            plan_files("decompress", [tmp_path], None, False)
        (tmp_path / "x.png").write_bytes(b"")
        with pytest.raises(
            DataError,
            match="expected a compressed file, got a name that ends in .png",
        ):
            plan_files("decompress", [tmp_path / "x.png"], None, True)
        save(tmp_path / "photo.jpg")
        with pytest.raises(DataError, match="as .*photo.jpg does; rename one"):
            plan_files("compress", [tmp_path], tmp_path / "new", False)

    def test_a_file_is_whole_or_absent(self, tmp_path):
        target = tmp_path / "new/file"
        with pytest.raises(TypeError), whole_file(target) as part:
            part.write_bytes(b"half") + part
        assert list(target.parent.iterdir()) == []
        target.write_bytes(b"old")
        with whole_file(target) as part:
            part.write_bytes(b"new")
            assert target.read_bytes() == b"old"
        assert [path.name for path in target.parent.iterdir()] == ["file"]
        assert target.read_bytes() == b"new"
