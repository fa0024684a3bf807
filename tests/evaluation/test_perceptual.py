"""LPIPS and DISTS with weights from files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import distillkit
from distillkit.errors import DataError
from distillkit.training.objectives.distances import Dists, Lpips

pytest.importorskip("lpips")
pytest.importorskip("torchmetrics")


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


@pytest.mark.slow
def test_it_stands_in_the_results(file, teacher_file, plugins, photographs, tmp_path):
    paths = sorted(photographs.iterdir())[:1]
    measured = distillkit.evaluate_model(teacher_file, paths, tmp_path, plugins=plugins, perceptual=[Lpips(file)])
    decoded = distillkit.read_image(tmp_path / f"{measured.images[0].name}.png")
    assert measured.averages["lpips"] == Lpips(file)(distillkit.read_image(paths[0]), decoded)
    assert "lpips" in (tmp_path / "images.csv").read_text().partition("\n")[0]


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file; check the path"):
        Lpips(tmp_path / "nowhere.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="expected torchvision's AlexNet, but it cannot be built"):
        Lpips(tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(DataError, match="expected a state dict, got list"):
        Lpips(tmp_path / "list.pth")
    for rubbish in (b"", b"0" * 100, b"notes", b"(lp0\n"):
        (tmp_path / "rubbish.pth").write_bytes(rubbish)
        with pytest.raises(DataError, match="cannot be read as weights"):
            Lpips(tmp_path / "rubbish.pth")
    torch.save(Image.new("RGB", (1, 1)), tmp_path / "code.pth")
    with pytest.raises(DataError, match="cannot be read as weights"):
        Lpips(tmp_path / "code.pth")


@pytest.fixture(scope="module")
def vgg():
    from torchvision.models import vgg16

    torch.manual_seed(0)
    return vgg16(weights=None)  # of the size and names of the trained one


@pytest.fixture(scope="module")
def vgg_file(vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(vgg.state_dict(), path)
    return path


def vgg_features(network, picture):
    """The picture, and what follows the last convolution before each pooling, which is that of the paper."""
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    maps, h = [x], (x - mean) / std
    window = torch.outer(w := torch.tensor([0.5, 1.0, 0.5]).double(), w)
    for layer in network.features[:-1]:
        if isinstance(layer, torch.nn.MaxPool2d):
            maps.append(h)
            kernel = (window / window.sum()).expand(h.shape[1], 1, 3, 3)
            h = (F.conv2d(h.square(), kernel, stride=2, padding=1, groups=h.shape[1]) + 1e-12).sqrt()
        else:
            h = layer(h)
    return [*maps, h]


@torch.no_grad()
@pytest.mark.slow
def test_dists_is_the_papers_formula(vgg, vgg_file, monkeypatch):
    from torchmetrics.functional.image import dists

    weights = torch.load(dists._PATH_WEIGHT_DISTS, weights_only=True)
    first, second = pictures()
    sides = [vgg_features(vgg.double(), picture) for picture in (first, second)]
    similarity, place = 0.0, 0
    for f, g in zip(*sides, strict=True):
        f, g = f.flatten(2)[0], g.flatten(2)[0]
        alpha, beta = (weights[key].double().flatten()[place : place + len(f)] for key in ("alpha", "beta"))
        means, variances = (f.mean(1), g.mean(1)), (f.var(1, correction=0), g.var(1, correction=0))
        covariance = (f * g).mean(1) - means[0] * means[1]
        luminance = (2 * means[0] * means[1] + 1e-6) / (means[0] ** 2 + means[1] ** 2 + 1e-6)
        structure = (2 * covariance + 1e-6) / (variances[0] + variances[1] + 1e-6)
        similarity += float((alpha * luminance + beta * structure).sum())
        place += len(f)
    expected = 1 - similarity / float(weights["alpha"].double().sum() + weights["beta"].double().sum())
    measure = Dists(vgg_file)
    monkeypatch.setenv("TORCH_HOME", "/elsewhere")  # what torch looks at is left as it was
    assert torch.hub.get_dir() == "/elsewhere/hub"
    assert expected > 0.01
    assert measure(first, second) == pytest.approx(expected, rel=1e-3)
    assert measure(first, first) == pytest.approx(0, abs=1e-5)


def test_another_network_for_dists_is_said(state, tmp_path):
    torch.save(state, tmp_path / "alexnet.pth")
    with pytest.raises(DataError, match="DISTS, weights .*: expected torchvision's VGG-16, but it cannot be built"):
        Dists(tmp_path / "alexnet.pth")
    with pytest.raises(DataError, match="DISTS, weights .*: no such file; check the path"):
        Dists(tmp_path / "nowhere.pth")


@pytest.mark.slow
def test_a_models_file_makes_no_command_open_the_weights_that_it_names(
    file, teacher_file, plugins, photographs, tmp_path, caplog
):
    """A named pipe, which would be waited for: the cost is left out, or computed by what the caller hands over."""
    import os

    from distillkit.model.file import save_model
    from distillkit.training.objectives.objective import build_objective

    os.mkfifo(tmp_path / "fifo.pth")
    trained = distillkit.load_model(teacher_file, plugins)
    objective = {"name": "core.lpips", "weights": str(tmp_path / "fifo.pth"), "mse": 0, "lpips": 100}
    about = (trained.pair, trained.options, trained.part, 0.01)
    save_model(tmp_path / "model.safetensors", trained.codec, *about, objective=objective)
    picture = sorted(photographs.iterdir())[:1]
    options = {"plugins": plugins, "perceptual": [Lpips(file)]}
    measured = distillkit.evaluate_model(tmp_path / "model.safetensors", picture, tmp_path / "out", **options)
    assert measured.averages["rd_cost"] is None
    assert "its objective core.lpips needs a file (weights) that is not opened" in caplog.text
    given = build_objective(objective | {"weights": str(file)}, plugins, "test")
    measured = distillkit.evaluate_model(
        tmp_path / "model.safetensors", picture, tmp_path / "out2", objective=given, **options
    )
    means = measured.averages
    assert means["rd_cost"] == pytest.approx(0.01 * 100 * means["lpips"] + means["rate_bpp"], rel=1e-4)
