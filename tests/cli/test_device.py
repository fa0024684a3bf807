"""`--device` of every command that runs a codec."""

from __future__ import annotations

import re

import pytest
import torch
from typer.testing import CliRunner

from distillkit.cli.app import app
from distillkit.errors import DistillkitError
from distillkit.model.device import find_device

ZOO = "zoo:lite-student"


class Reached(Exception):
    """The codec was about to be put on a device."""


@pytest.fixture
def commands(photographs, trained_family, tmp_path):
    picture = str(next(photographs.iterdir()))
    (tmp_path / "file.dk").write_bytes(b"nothing")
    return {
        "compress": [picture, str(tmp_path / "out.dk"), "--model", ZOO],
        "decompress": [str(tmp_path / "file.dk"), str(tmp_path / "out.png"), "--model", ZOO],
        "evaluate": [ZOO, "--data", str(photographs), "--out", str(tmp_path / "evaluation")],
        "compare": [ZOO, "--data", str(photographs), "--out", str(tmp_path / "comparison")],
        "bench": [ZOO, "--data", str(photographs), "--out", str(tmp_path / "bench")],
        "report": [str(trained_family), "--out", str(tmp_path / "page.html")],
    }


NAMES = ("compress", "decompress", "evaluate", "compare", "bench", "report")


@pytest.mark.parametrize("name", NAMES)
def test_the_device_reaches_the_codec(name, commands, monkeypatch):
    def find(choice, where):
        if choice == "auto":
            raise Reached
        return find_device(choice, where)

    monkeypatch.setattr("distillkit.model.file.find_device", find)
    outcome = CliRunner().invoke(app, [name, *commands[name], "--device", "auto"])
    assert isinstance(outcome.exception, Reached), outcome.output


@pytest.mark.parametrize("name", [*NAMES, "family"])
@pytest.mark.parametrize("device", ["cuda:99", "gpu", "mps:1"])
def test_one_that_is_not_there(name, device):
    arguments = {"family": ["family.toml"], "compress": ["a.png", "--model", ZOO], "decompress": ["a", "--model", ZOO]}
    given = arguments.get(name, ["a", "--data", "b"] if name != "report" else ["a"])
    outcome = CliRunner().invoke(app, [name, *given, "--device", device])
    assert isinstance(outcome.exception, DistillkitError)
    assert re.match(rf"--device: expected .*got '{device}'", str(outcome.exception))


def test_auto_takes_what_there_is():
    assert find_device("auto", "device").type == ("cuda" if torch.cuda.is_available() else find_device("cpu", "x").type)


def test_a_file_written_with_auto_is_read_on_a_cpu(photographs, tmp_path):
    picture, file, decoded = next(photographs.iterdir()), tmp_path / "a.dk", tmp_path / "a.png"
    for call in (
        ["compress", str(picture), str(file), "--device", "auto"],
        ["decompress", str(file), str(decoded), "--device", "cpu"],
    ):
        outcome = CliRunner().invoke(app, [*call, "--model", ZOO, "-q"])
        assert outcome.exit_code == 0, outcome.output
    assert decoded.exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_files_cross_between_gpu_and_cpu(tmp_path):
    """Twenty-four files each way, of pictures with fine detail."""
    import numpy as np

    import distillkit

    codecs = [distillkit.load_codec(ZOO, device=device, precision="fp32") for device in ("cuda", "cpu")]
    generator = np.random.default_rng(0)
    for _ in range(24):
        rough = generator.integers(0, 256, (32, 48, 3), np.uint8)
        picture = np.kron(rough, np.ones((8, 8, 1), np.uint8))
        for writer, reader in (codecs, codecs[::-1]):
            data = writer.encode(picture)
            difference = np.abs(reader.decode(data).astype(int) - writer.decode(data))
            assert difference.max() <= 5
