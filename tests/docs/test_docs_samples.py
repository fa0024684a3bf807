"""What docs/samples.md shows runs as it stands, with fewer steps."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import tifffile

TEXT = (Path(__file__).parents[2] / "docs" / "samples.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes").mkdir()
    rows, columns = np.mgrid[:96, :128]
    scene = np.stack([2047 * (1 + np.sin((rows + columns * band) / 9)) for band in range(4)], -1).astype(np.uint16)
    tifffile.imwrite("scenes/0.tif", scene, planarconfig="contig", photometric="minisblack")
    module = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    shorter = CODE.replace('"num_steps": 1000', '"num_steps": 2, "device": "cpu"')
    assert shorter != CODE
    exec(compile(shorter, "docs/samples.md", "exec"), module.__dict__)
    decoded = np.load("decoded.npy")
    assert (decoded.shape, decoded.dtype) == (scene.shape, np.uint16)
    assert decoded.max() <= 4095
