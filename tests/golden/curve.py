"""A loss curve that changes only when training is meant to change: `python -m tests.golden.curve` writes it anew.

The student of `models.lowres` at size `tiny` learns by FEDS for 30 steps, from a teacher of two steps, in float32.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import distillkit
from distillkit.testing.pytest_plugin import draw_photographs

FILE = Path(__file__).with_suffix(".json")
KEYS = ("step", "phase", "rate_bpp", "psnr_db", "rd_cost", "loss/feds.alignment", "loss/feds.channel_entropy")


def train(folder: Path) -> list[dict[str, float | str]]:
    """Return what was logged at each step: rates in bpp, PSNR in dB, losses unweighted."""
    (folder / "pictures").mkdir()
    common = {
        "pair": {"name": "models.lowres", "size": "tiny"},
        "data": {"train": draw_photographs(folder / "pictures"), "crop": 64, "batch_size": 2},
        "optimizer": {"name": "muon", "learning_rate": 1e-3},
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
    }
    alone = distillkit.Recipe.create(trains="teacher", num_steps=2, **common)
    teacher = distillkit.train(alone, folder / "teacher", observers=[])
    losses = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}
    schedule = {"name": "feds.staged"}
    taught = distillkit.Recipe.create(num_steps=30, teacher=teacher, losses=losses, schedule=schedule, **common)
    distillkit.train(taught, folder / "student", observers=[])
    lines = (folder / "student" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: row[key] for key in KEYS if key in row} for row in map(json.loads, lines)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        rows = train(Path(made))
    FILE.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
