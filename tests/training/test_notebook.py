"""The notebook of `examples/` runs from photographs to a page, with one line of progress for each run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "photographs-to-page.ipynb"


def test_it_is_kept_without_outputs():
    assert not any(cell.get("outputs") for cell in nbformat.read(NOTEBOOK, 4).cells)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_photographs_to_a_page(tmp_path, monkeypatch):
    pytest.importorskip("ipykernel")
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, 4)
    client = nbclient.NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    (training,) = [cell for cell in notebook.cells if "distillkit.distil(" in cell.source]
    shown = [output["data"]["text/html"] for output in training.outputs if "<progress" in str(output.get("data"))]
    assert len(shown) == 3, "one line for each run, changed in place"
    for name, text in zip(("teacher", "control", "student"), shown, strict=True):
        assert f"<b>{name}" in text
        assert '<progress value="60" max="60">' in text
        assert re.search(r"\d\.\d{3} bpp  \d+\.\d\d dB", text)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    streams = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not [text for text in streams if "tqdm" not in text]  # of a library, where ipywidgets is missing
    table = next(cell for cell in notebook.cells if cell.source == "done.comparison.table()")
    assert "student" in str(table.outputs)
    assert (tmp_path / "runs/notebook/report.html").stat().st_size > 100_000
