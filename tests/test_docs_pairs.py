"""What docs/pairs.md shows runs as it stands, and names every pair that ships."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import torch

import distillkit
from distillkit.errors import PairError
from distillkit.taps import TapBank
from tests.foreign_codecs import TokenAdapter, TokenCodec

TEXT = (Path(__file__).parents[1] / "docs" / "pairs.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def run(name):
    scope = {}
    (code,) = (block for block in PYTHON if name in block)
    exec(compile(code, "docs/pairs.md", "exec"), scope)
    return scope[name]


def test_every_pair_is_named():
    assert set(re.findall(r"^\| `([\w.]+)` \|", TEXT, flags=re.MULTILINE)) == set(
        distillkit.load_plugins().components["pair"]
    )


def test_every_architecture_is_named():
    from typing import get_args

    pair = distillkit.load_plugins().components["pair"]["models.compressai"]
    architectures = get_args(pair.Config.model_fields["student"].annotation.model_fields["architecture"].annotation)
    assert all(f"`{name}`" in TEXT for name in architectures)


def test_the_recipe(monkeypatch):
    (toml,) = (block for block in re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL) if "[pair]" in block)
    options = tomllib.loads(toml)["pair"]
    pair_class, config = distillkit.load_plugins().configure("pair", options.pop("name"), options, "test")
    pair = pair_class(config)
    assert pair.pretrained_teacher
    assert pair.teacher_lmbda == 0.013
    assert type(pair.build_student()).__name__ == "Cheng2020AnchorCheckerboard"
    import compressai.zoo.image

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(compressai.zoo.image, "load_state_dict_from_url", refuse)
    import pytest

    with pytest.raises(PairError, match=r"name it as teacher.weights"):
        pair.build_teacher()


def test_the_taps():
    taps = run("WindowAttentionTaps").student_taps(None)
    bank = TapBank(TokenAdapter(TokenCodec(12)), taps, "student")
    _, features = bank.run(torch.rand(1, 3, 32, 64), list(taps))
    assert features["analysis.1/4"].shape == (1, 12, 8, 16)


def test_the_adapter():
    class Mine(TokenCodec):
        def forward(self, x):
            out = super().forward(x)
            return {"reconstruction": out["rec"], "p_latent": out["lkd"]["main"]}

        def encode(self, x, quality):
            streams, size = self.compress(x, quality)
            return streams["layers"][0]["main"][0], size

        def decode(self, strings, size, quality):
            return self.decompress({"layers": [{"main": (strings,)}]}, size, quality)

    adapter = run("MyAdapter")(Mine(12))
    images = torch.rand(1, 3, 64, 128)
    adapter.update()
    assert set(adapter.forward(images).likelihoods) == {"y"}
    with torch.no_grad():
        assert adapter.decompress(adapter.compress(images)).shape == images.shape
