"""No file ends the others: pictures too large, too little memory, names of any bytes, processes that die."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distillkit.cli.app import app
from distillkit.cli.sources import plan_files
from distillkit.codec import folder
from distillkit.codec.files import Settings, whole_file
from distillkit.codec.folder import code_files
from distillkit.model.file import save_model
from tests.lively import adapter, picture


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, adapter("checkerboard"), "models.cheng2020", {"size": "tiny"}, "student", 0.013)
    return path


def save(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(64, 64) if pixels is None else pixels).save(path, "png")
    return path


def code(model, source, target=None, direction="compress"):
    """Return the error of each file by its name."""
    pairs = plan_files(direction, [source], target, True)
    return {each.source.name: each.error for each in code_files(Settings(direction, model), pairs, id, print)}


@contextmanager
def little_memory(mib):
    """Leave the process so much more address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_picture_longer_than_the_format(model, tmp_path):
    for name in ("a", "c"):
        save(tmp_path / f"in/{name}.png")
    save(tmp_path / "in/b.png", np.zeros((16, 70000, 3), np.uint8))
    errors = code(model, tmp_path / "in", tmp_path / "out")
    assert (errors["a.png"], errors["c.png"]) == (None, None)
    assert "b.png: compressed file: expected an image with sides of 1 to 65535 pixels, got 70000x16" in errors["b.png"]


SHORT_OF_MEMORY = """
import json, sys
from pathlib import Path
from distillkit.codec import folder
from distillkit.codec.folder import Settings
from tests.codec.test_folder import code, little_memory

model, here = map(Path, sys.argv[1:3])
codec = folder.load_codec(Settings("compress", model))
folder._num_cores, folder.load_codec = (lambda: 1), (lambda _: codec)
with little_memory(int(sys.argv[3])):
    errors = code(model, here / "in", here / "out")
print(json.dumps(errors))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("mib", [150, 400])  # too little to read it, to code it
def test_too_little_memory_for_one(model, tmp_path, mib):
    """Torch's own error on CPUs is a plain RuntimeError. In a fresh process: one that has coded keeps memory."""
    for name, side in (("a", 64), ("b", 3000), ("c", 64)):
        save(tmp_path / f"in/{name}.png", np.full((side, side, 3), 99, np.uint8))
    command = [sys.executable, "-W", "ignore", "-c", SHORT_OF_MEMORY, str(model), str(tmp_path), str(mib)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout.splitlines()[-1])
    assert (errors["a.png"], errors["c.png"]) == (None, None)
    assert re.search(r"b\.png: (expected enough memory, got too little|.* GB that are free); cut", errors["b.png"])
    assert sorted(os.listdir(tmp_path / "out")) == ["a.dk", "c.dk"]


def test_names_of_any_bytes(model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    names = ["[bold]x[/] [/nope].png", "two\nlines\x1b[31m.png", ":smile:.png", "x" * 251 + ".png", "-.png"]
    for name in names:
        save(tmp_path / "in" / name)
    os.rename(save(tmp_path / "in/y.png"), os.fsencode(tmp_path / "in") + b"/\xff.png")
    done = CliRunner().invoke(app, ["compress", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model)])
    assert done.exit_code == 0, done.output
    assert len(os.listdir(tmp_path / "out")) == 6
    for words in ("[bold]x[/] [/nope].dk", r"two\nlines\x1b[31m.dk", ":smile:.dk", r"\udcff.dk"):
        assert words in done.stdout.replace("\n", ""), words
    assert "\x1b[31m" not in done.stdout


@pytest.mark.slow
def test_names_of_any_bytes_in_errors(model, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\x1b[31m.png"
    Path(os.fsdecode(name)).write_bytes(b"rubbish")
    command = [sys.executable, "-m", "distillkit", "compress", name, "--model", str(model)]
    done = subprocess.run(command, capture_output=True, timeout=200, env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 2
    assert rb"\udcff\x1b[31m.png: expected a picture" in done.stderr
    assert b"Traceback" not in done.stderr


def test_what_cannot_be_written_names_the_target(model, tmp_path):
    source, target = save(tmp_path / "a.png"), tmp_path / "file" / "a.dk"
    target.parent.write_text("no folder")
    errors = code(model, source, target)
    assert errors["a.png"] == f"file {target}: cannot be written: File exists."
    assert code(model, source) == {"a.png": None}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as a disk that is full
    try:
        errors = code(model, tmp_path / "a.dk", tmp_path / "back.png", "decompress")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert errors["a.dk"] == f"file {tmp_path / 'back.png'}: cannot be written: File too large."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dk", "a.png", "file"]


def test_a_name_as_long_as_names_may_be(tmp_path):
    with whole_file(tmp_path / ("x" * 252 + ".dk")) as part:
        part.write_bytes(b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


@pytest.mark.slow
def test_processes_that_die(model, tmp_path, monkeypatch):
    """Those that were coding when one was killed are tried again, each alone."""
    for number in range(6):
        save(tmp_path / f"in/{number}.png")
    monkeypatch.setattr(folder, "_num_cores", lambda: 2)
    monkeypatch.setattr(folder, "_WORTH_SECONDS", 0.0)
    killed = []

    def kill(_):
        children = [] if killed else multiprocessing.active_children()
        for child in children:
            child.kill()
            killed.append(child.pid)

    pairs = plan_files("compress", [tmp_path / "in"], tmp_path / "out", False)
    coded = code_files(Settings("compress", model), pairs, kill, print)
    assert killed
    assert [each.error for each in coded] == [None] * 6
    assert len(os.listdir(tmp_path / "out")) == 6


def test_a_file_that_kills_its_process_again(model, tmp_path, monkeypatch):
    for number in range(5):
        save(tmp_path / f"in/{number}.png")
    monkeypatch.setattr(folder, "_num_cores", lambda: 2)
    monkeypatch.setattr(folder, "_WORTH_SECONDS", 0.0)
    over = threading.Event()

    def kill_all():
        while not over.wait(0.02):
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        errors = code(model, tmp_path / "in", tmp_path / "out")
    finally:
        over.set()
        killer.join()
    failed = [error for error in errors.values() if error is not None]
    assert 1 <= len(failed) <= 3  # two are coded before there are processes
    assert all("expected its process to finish, got one that was killed" in error for error in failed)


SCRIPT = """
import sys
from pathlib import Path
from distillkit.codec import folder
from distillkit.cli.sources import plan_files
from distillkit.codec.files import Settings
if __name__ == "__main__":
    folder._num_cores, folder._WORTH_SECONDS = lambda: 2, 0.0
    pairs = plan_files("compress", [Path("in")], Path("out"), False)
    folder.code_files(Settings("compress", Path(sys.argv[1])), pairs, print, print)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(model, tmp_path):
    for number in range(200):
        save(tmp_path / f"in/{number}.png", picture(256, 256) if number == 0 else None)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(model)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers: list[str] = []
    end = time.monotonic() + 120
    while len(workers) < 2 and time.monotonic() < end and process.poll() is None:  # the pool's, and a resource tracker
        workers = children.read_text().split()
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    end = time.monotonic() + 60
    while any(is_running(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in workers if is_running(pid)]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
