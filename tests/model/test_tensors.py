"""Tensors in a file."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch

from distillkit.model.tensors import read_tensors, write_tensors

PEAK = """
import sys, torch
from pathlib import Path
from distillkit.model.tensors import write_tensors
def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
tensors = {name: torch.ones(16, 1024, 1024) for name in "abcd"}
before = peak()
write_tensors(Path(sys.argv[1]), tensors, {"format": "x"})
print(peak() - before)
"""


def test_tensors_that_share_memory_are_written_each_by_itself(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    tensors = {"one": weight, "tied": weight, "turned": weight.t(), "part": weight[1:], "none": torch.empty(0, 3)}
    tensors["none too"] = tensors["none"]
    for name in ("a", "b"):
        write_tensors(tmp_path / name, tensors, {"z": "1", "a": 'ü"'})
    found, metadata = read_tensors(tmp_path / "a")
    assert metadata == {"z": "1", "a": 'ü"'}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    hashes = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a", "b")}
    assert len(hashes) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_writing_takes_no_copy_of_the_tensors(tmp_path):
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large")]
    kilobytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kilobytes < 64e3  # of 268e3 in the tensors


def test_others_may_read_it_where_they_may_read_new_files(tmp_path):
    (tmp_path / "new").touch()
    write_tensors(tmp_path / "weights", {"x": torch.ones(2)}, {})
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "new").stat().st_mode
