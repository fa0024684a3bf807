"""LPIPS with weights from a file."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import distillkit
from distillkit.errors import DataError
from distillkit.evaluation.perceptual import Lpips

pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def state():
    from torchvision.models import alexnet

    torch.manual_seed(0)
    return alexnet(weights=None).state_dict()  # of the size and names of the trained one


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(state, path)
    return path


def pictures():
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    return picture, (picture // 2 + 30).astype(np.uint8)


def test_the_packages_own_figure(state, file):
    """The same as the package gives when its network has these weights."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    layers = {int(name): layer for part in own.net.children() for name, layer in part.named_children()}
    for index, layer in layers.items():
        if hasattr(layer, "weight"):
            layer.weight.data, layer.bias.data = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
    first, second = pictures()
    tensors = [torch.from_numpy(p).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in (first, second)]
    expected = float(own(*tensors).detach())
    assert expected > 0
    assert Lpips(file)(first, second) == pytest.approx(expected, rel=1e-5)
    assert Lpips(file)(first, first) == 0


def test_safetensors(state, file, tmp_path):
    save_file(state, tmp_path / "alexnet.safetensors")
    assert Lpips(tmp_path / "alexnet.safetensors")(*pictures()) == Lpips(file)(*pictures())


def test_it_stands_in_the_results(file, teacher_file, plugins, photographs, tmp_path):
    paths = sorted(photographs.iterdir())[:1]
    measured = distillkit.evaluate_model(teacher_file, paths, tmp_path, plugins=plugins, lpips=Lpips(file))
    decoded = distillkit.read_image(tmp_path / f"{measured.images[0].name}.png")
    assert measured.averages["lpips"] == Lpips(file)(distillkit.read_image(paths[0]), decoded)
    assert "lpips" in (tmp_path / "images.csv").read_text().partition("\n")[0]


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file; check the path"):
        Lpips(tmp_path / "nowhere.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="expected torchvision's AlexNet, got another network"):
        Lpips(tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(DataError, match="expected a state dict, got list"):
        Lpips(tmp_path / "list.pth")
    torch.save(Image.new("RGB", (1, 1)), tmp_path / "code.pth")
    with pytest.raises(DataError, match="cannot be read as weights"):
        Lpips(tmp_path / "code.pth")
