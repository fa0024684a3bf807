"""`distillkit doctor` finds what is wrong; `DISTILLKIT_TRACE` shows each hook call."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import distillkit
from distillkit import doctor
from distillkit.cli.app import app


@pytest.fixture
def findings(tmp_path):
    return lambda: {finding.topic: finding for finding in doctor.diagnose(tmp_path)}


def test_a_sound_installation(findings):
    found = findings()
    assert found["versions"].found.startswith(f"torch {importlib.metadata.version('torch')}, ")
    assert found["distribution"].state == found["plugins"].state == "ok"
    assert "GiB free" in found["disk"].found
    assert all(finding.advice for finding in found.values() if finding.state != "ok")


def test_a_distribution_of_the_same_name_is_in_the_way(findings, tmp_path, monkeypatch):
    """Another project on PyPI is called distillkit: its metadata beside ours."""
    info = tmp_path / "distillkit-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: distillkit\nVersion: 0.1\n")
    (info / "top_level.txt").write_text("distillkit\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = findings()["distribution"]
    assert found.state == "problem"
    assert "pip uninstall distillkit distillkit-lic" in found.advice


def test_more_threads_than_cores(findings, monkeypatch):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0}, raising=False)
    torch.set_num_threads(4)
    assert findings()["threads"].advice.startswith("Set OMP_NUM_THREADS=1")


def test_a_busy_machine(findings, monkeypatch):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (1.5, 0, 0))
    torch.set_num_threads(2)
    assert "Something else is busy" in findings()["threads"].advice


def test_a_full_disk(findings, monkeypatch):
    usage = type("Usage", (), {"free": 1 << 30})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert findings()["disk"].state == "note"


def test_the_command(monkeypatch):
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "plugins" in done.output
    monkeypatch.setattr(doctor, "DISTRIBUTION", "distillkit-elsewhere")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert [row["topic"] for row in json.loads(done.output) if row["state"] == "problem"] == ["distribution"]


class Failing:
    @distillkit.hookimpl
    def phase_started(self, phase):
        raise KeyError("oops")


def test_the_trace_shows_each_hook_call(recipe, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DISTILLKIT_TRACE", "1")
    import tests.small_pair

    plugins = distillkit.load_plugins(small=tests.small_pair)
    short = recipe(trains="teacher", schedule={"name": "core.constant"}, num_steps=1)
    distillkit.train(short, tmp_path / "run", plugins=plugins)
    lines = capsys.readouterr().err.splitlines()
    assert "distillkit: hook register_loss_terms of feds: feds.alignment, feds.channel_entropy" in lines
    assert (
        "distillkit: hook register_pairs of small: small.gained, small.pair, small.quiet, small.quiet_gained" in lines
    )
    (started,) = (line for line in lines if " hook run_started " in line)
    assert started.startswith("distillkit: hook run_started (run=run) -> MetricsFile: ")
    (logged,) = (line for line in lines if " hook metrics_logged " in line)
    assert "metrics={step, phase, rate_bpp" in logged
    with pytest.raises(KeyError), plugins.observing([Failing()]):
        plugins.manager.hook.phase_started(run=None, phase=distillkit.Phase("align", 1), step=0)
    assert "(run=None, phase=align, step=0) -> Failing: " in (told := capsys.readouterr().err)
    assert told.endswith("raised KeyError\n")


def test_no_trace_unless_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("DISTILLKIT_TRACE", "0")
    distillkit.load_plugins()
    assert "hook" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_written():
    if not Path("/sys").is_dir():
        pytest.skip("no /sys, where nobody may write")
    found = doctor._disk(Path("/sys"))
    assert (found.state, found.found.partition(":")[0]) == ("problem", "/sys cannot be written")
