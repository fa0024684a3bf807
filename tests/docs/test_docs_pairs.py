"""What docs/pairs.md shows runs as it stands, and names every pair that ships."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch
from compressai.models import MeanScaleHyperprior

import distillkit
import distillkit.testing
from distillkit.model.complexity import parameters_by_part
from distillkit.taps.bank import TapBank
from tests.foreign_codecs import TokenAdapter, TokenCodec

TEXT = (Path(__file__).parents[2] / "docs" / "pairs.md").read_text(encoding="utf-8")
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


def test_the_table_has_every_codec_and_its_parameters():
    plugins = distillkit.load_plugins()
    expected = {}
    for name, pair_class in plugins.components["pair"].items():
        for options in pair_class.examples():
            pair = pair_class(plugins.configure("pair", name, options, "test")[1])
            for part, build in (("teacher", pair.build_teacher), ("student", pair.build_student)):
                own = options.get(part, options)
                words = [value if isinstance(value, str) else f"{key}={value}" for key, value in own.items()]
                parts = parameters_by_part(build())
                counts = [sum(parts.values()), *parts.values()]
                title = f"{' '.join([name.removeprefix('models.'), *words])}, {part}"
                expected[title] = [f"{count / 1e6:.2f}" for count in counts]
    rows = re.findall(r"^\| (\w[^|]*, (?:teacher|student)) \|(.*)\|$", TEXT, flags=re.MULTILINE)
    assert {title: [cell.strip() for cell in cells.split("|")][:4] for title, cells in rows} == expected


def test_every_architecture_is_named():
    from distillkit_models.compressai_zoo import KNOWN

    assert all(f"`{name}`" in TEXT for name in KNOWN)


def configured(options):
    pair_class, config = distillkit.load_plugins().configure("pair", options.pop("name"), options, "test")
    return pair_class(config)


def test_the_recipes(tmp_path, monkeypatch, photographs):
    ordered, pair, _ = (
        configured(tomllib.loads(block)["pair"])
        for block in re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
        if "[pair]" in block
    )
    assert ordered.build_student().size.width == 64
    assert ordered.build_student().size.latent == 184
    assert pair.pretrained_teacher
    assert pair.teacher_lmbda == 0.013
    assert type(pair.build_student()).__name__ == "Cheng2020AnchorCheckerboard"

    (block,) = re.findall(r"```toml\n(# imported.toml.*?)```", TEXT, flags=re.DOTALL)
    published = MeanScaleHyperprior(16, 24)
    torch.save({"state_dict": published.state_dict()}, tmp_path / "mbt2018-mean.pth.tar")
    (tmp_path / "imported.toml").write_text(block)
    (tmp_path / "photos").symlink_to(photographs)
    monkeypatch.chdir(tmp_path)
    recipe = distillkit.Recipe.load("imported.toml", {"data.crop": 64, "device": "cpu"})
    imported = distillkit.load_model(distillkit.train(recipe, "runs/imported")).codec.module.state_dict()
    weights = dict(published.named_parameters())
    del weights["entropy_bottleneck.quantiles"]  # of the coder's tables, which a run fits at its end
    assert all(torch.equal(imported[name], weight) for name, weight in weights.items())


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


@pytest.mark.slow
def test_the_worked_example_passes_the_check_and_has_as_many_lines_as_it_says():
    own_pair = run("OwnPair")
    distillkit.testing.check_pair(own_pair)
    (code,) = (block for block in PYTHON if "OwnPair" in block)
    adapter = code[code.index("class OwnAdapter") : code.index("class OwnPair")]
    num_lines = len([line for line in adapter.splitlines() if line.strip()])
    assert f"Its adapter has {num_lines} lines" in TEXT
    codec = own_pair.build_student(None)
    images = torch.rand(1, 3, 32, 32)
    codec.forward(images).x_hat.sum().backward()
    assert codec.module.encoder[0].weight.grad.abs().sum() > 0  # straight through the rounding
