"""Models that ship, and models in half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import distillkit
from distillkit.errors import CheckpointError
from distillkit.model import zoo
from distillkit.model.adapters import as_codec, entropy_path, fingerprint
from distillkit.model.file import save_model
from distillkit.model.lmbda import as_lmbda
from distillkit.model.tensors import read_tensors, write_tensors


def test_half_precision_is_the_same_model_in_half_the_bytes(tmp_path, plugins):
    torch.manual_seed(0)
    pair = plugins.get("pair", "small.pair", "test")
    codec = as_codec(pair(pair.Config()).build_student())
    save_model(tmp_path / "full.safetensors", codec, "small.pair", {}, "student", 0.013)
    before = {name: tensor.clone() for name, tensor in codec.module.named_parameters()}
    save_model(tmp_path / "half.safetensors", codec, "small.pair", {}, "student", 0.013, half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    weights = 2 * sum(tensor.numel() for tensor in before.values())
    assert sizes[0] - sizes[1] == pytest.approx(weights, rel=0.2)
    loaded = distillkit.load_model(tmp_path / "half.safetensors", plugins)
    assert loaded.fingerprint == fingerprint(loaded.codec.module) == fingerprint(codec.module)
    for name, tensor in loaded.codec.module.named_parameters():
        assert tensor.dtype == torch.float32
        if not name.endswith("quantiles"):  # solved for again, from the rounded weights
            assert torch.equal(tensor, before[name].half().float())
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    data = distillkit.ImageCodec(codec, loaded.fingerprint).encode(picture)
    assert distillkit.ImageCodec(loaded.codec, loaded.fingerprint).decode(data).shape == picture.shape


def test_an_unknown_model():
    with pytest.raises(CheckpointError, match="model zoo:lite-fed: no such model"):
        distillkit.load_model("zoo:lite-fed")


def test_a_light_decoders_file_leaves_the_rest_to_a_model_that_ships(tmp_path):
    options = {"teacher": "zoo:lite-student", "synthesis": {"width": 8, "blocks": 1}}
    pair_class, config = distillkit.load_plugins().configure("pair", "models.light", options, "test")
    pair = pair_class(config)
    codec = pair.build_student()
    about = ("models.light", pair.options_of("student", codec.module), "student", 0.013)
    save_model(tmp_path / "light.safetensors", codec, *about, half=True, rest="zoo:lite-student")
    assert (tmp_path / "light.safetensors").stat().st_size < 50e3
    loaded = distillkit.load_model(tmp_path / "light.safetensors")
    assert loaded.fingerprint == fingerprint(codec.module)
    teacher = distillkit.load_model("zoo:lite-student")
    assert entropy_path(loaded.codec.module) == entropy_path(teacher.codec.module)
    for name, tensor in teacher.codec.module.g_a.state_dict().items():
        assert torch.equal(tensor, loaded.codec.module.g_a.state_dict()[name])
    with pytest.raises(CheckpointError, match="no such model"):
        save_model(tmp_path / "other.safetensors", codec, *about, rest="zoo:lite")


def test_a_file_whose_rest_does_not_ship_is_named_in_the_error(tmp_path):
    options = {"teacher": "zoo:lite-student", "synthesis": {"width": 8, "blocks": 1}}
    pair_class, config = distillkit.load_plugins().configure("pair", "models.light", options, "test")
    codec = pair_class(config).build_student()
    path = tmp_path / "light.safetensors"
    about = ("models.light", pair_class(config).options_of("student", codec.module), "student", 0.013)
    save_model(path, codec, *about, half=True, rest="zoo:lite-student")
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {**metadata, "rest": "zoo:lite-studen"})
    with pytest.raises(CheckpointError, match="light.safetensors: expected .* `rest` .*zoo:lite-studen.*mean"):
        distillkit.load_model(path)


def test_the_zoo_is_small():
    assert sum(zoo.find(f"zoo:{name}").stat().st_size for name in zoo.manifest()) <= 30e6


@pytest.mark.parametrize("name", zoo.manifest())
def test_a_model_that_ships_loads_and_codes(name):
    model, about = distillkit.load_model(f"zoo:{name}"), zoo.manifest()[name]
    assert model.fingerprint == about["fingerprint"] == fingerprint(model.codec.module)
    assert (model.pair, model.part) == (about["pair"], about["part"])
    assert model.lmbda == as_lmbda(about["lmbda"])
    y, x = np.mgrid[0:96, 0:128]
    waves = np.stack([128 + 60 * np.sin(x / (17 + c)) + 60 * np.cos(y / (29 + c)) for c in range(3)], axis=2)
    picture = waves.astype(np.uint8)
    codec = distillkit.ImageCodec(model.codec, model.fingerprint)
    data = codec.encode(picture, 0.5 if codec.has_many_rates else None)
    error = np.square(codec.decode(data).astype(float) - picture).mean()
    assert 10 * np.log10(255**2 / error) > 25
    assert len(data) < picture.size / 20
