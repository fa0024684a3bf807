"""What a codec is trained for: figures by hand, each crop's own lambda, weights of zero, and a run for MS-SSIM."""

from __future__ import annotations

import json

import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F

import distillkit
from distillkit.errors import RecipeError
from distillkit.model.adapters import CodecOutput
from distillkit.training.objectives.objective import MeanSquaredError
from distillkit.training.objectives.similarity import MultiScaleSimilarity, Weighted, ms_ssim
from distillkit.training.phases import Phase, Ramp, Timeline

from .test_training import same, weights


def photographs_of(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.avg_pool2d(torch.rand(2, 3, *size, generator=generator), 5, 1, 2)


@pytest.mark.parametrize("size", [(161, 161), (192, 256), (177, 203)])
def test_ms_ssim_is_the_published_one(size):
    a, b = photographs_of(size), 0.9 * photographs_of(size) + 0.1 * photographs_of(size, 1)
    expected = pytorch_msssim.ms_ssim(a, b, data_range=1, size_average=False)
    assert torch.allclose(ms_ssim(a, b), expected, atol=1e-5)
    assert ms_ssim(a, a).tolist() == pytest.approx([1, 1])


def test_a_negative_has_a_gradient():
    """Where the published formula is 0 with all its derivatives: a codec at random weights would stay there."""
    images = photographs_of((192, 192))
    for distortion, moves in ((ms_ssim, True), (lambda a, b: pytorch_msssim.ms_ssim(a, b, data_range=1), False)):
        x_hat = (1 - images).requires_grad_()
        distortion(x_hat, images).sum().backward()
        assert x_hat.grad.isfinite().all()
        assert bool(x_hat.grad.abs().max() > 0) == moves


def test_each_crop_has_its_own_lambda():
    images = photographs_of((192, 192))
    output = CodecOutput(0.9 * images, {"y": torch.full((2, 4, 3, 3), 0.5)})
    for objective in (None, MultiScaleSimilarity(None), Weighted(Weighted.Config())):
        both = distillkit.rate_distortion(output, images, torch.tensor([0.01, 0.3]), objective)
        each = [
            distillkit.rate_distortion(
                CodecOutput(output.x_hat[i : i + 1], {"y": output.likelihoods["y"][i : i + 1]}),
                images[i : i + 1],
                lmbda,
                objective,
            )
            for i, lmbda in enumerate((0.01, 0.3))
        ]
        assert both.cost.item() == pytest.approx(sum(one.cost.item() for one in each) / 2, rel=1e-5)
        assert both.rate_bpp.item() == pytest.approx(36 / 192**2)
        assert both.mse.item() == pytest.approx((0.1 * images).square().mean().item(), rel=1e-4)


def test_the_weighted_sum_by_hand():
    images = photographs_of((192, 192))
    parts = [MeanSquaredError(None), MultiScaleSimilarity(None)]
    mse, similarity = (part.distortion(0.9 * images, images) for part in parts)
    got = Weighted(Weighted.Config(mse=2, ms_ssim=3)).distortion(0.9 * images, images)
    assert torch.allclose(got, 2 * mse + 3 * similarity)


@pytest.fixture
def for_similarity(recipe, large_photographs):
    def build(**changes):
        data = {"train": large_photographs, "crop": 192, "batch_size": 1}
        values = {"objective": {"name": "core.ms_ssim"}, "lmbda": 16.64, "num_steps": 2, "log_every": 1, "data": data}
        return recipe(**{**values, "schedule": {"name": "core.constant"}, **changes})

    return build


@pytest.fixture(scope="session")
def large_photographs(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("large")
    for number in range(2):
        picture = (photographs_of((200, 210), number)[0] * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
def test_a_run_for_ms_ssim_is_logged_and_evaluated_in_its_unit(for_similarity, large_photographs, tmp_path, plugins):
    model = distillkit.train(for_similarity(), tmp_path / "run", plugins=plugins)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        distortion = 10 ** (-line["ms_ssim_db"] / 10)
        assert line["rd_cost"] == pytest.approx(16.64 * distortion + line["rate_bpp"], rel=1e-4)
        assert line["psnr_db"] > 0
    loaded = distillkit.load_model(model, plugins)
    assert (loaded.objective["name"], loaded.lmbda) == ("core.ms_ssim", 16.64)
    result = distillkit.evaluate_model(model, sorted(large_photographs.iterdir()), tmp_path / "out", plugins=plugins)
    assert result.metric == "ms-ssim"
    for image in result.images:
        assert image.rd_cost == pytest.approx(16.64 * (1 - image.ms_ssim) + image.rate_bpp, rel=1e-4)


def test_bad_input_is_refused_before_the_first_step(for_similarity, recipe, tmp_path, plugins):
    small = for_similarity(data={"train": recipe().data.train, "crop": 64, "batch_size": 1})
    with pytest.raises(RecipeError, match=r"data\.crop: expected at least 161 pixels for core\.ms_ssim, got 64"):
        distillkit.train(small, tmp_path / "small", plugins=plugins)
    with pytest.raises(RecipeError, match=r"lmbda: missing; core\.ms_ssim has .* In use with it are 2\.4, 4"):
        distillkit.train(recipe(objective={"name": "core.ms_ssim"}), tmp_path / "none", plugins=plugins)
    with pytest.raises(RecipeError, match="objective: no objective 'core.ssim' is registered"):
        distillkit.train(recipe(objective={"name": "core.ssim"}), tmp_path / "name", plugins=plugins)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase("a", 4, {"t": -1.0}), "expected a weight of at least 0 for 't', got -1.0"),
        (Phase("a", 4, {"t": float("nan")}), "expected a weight of at least 0 for 't', got nan"),
        (Phase("a", 4, {"t": 1.0}, rd_weight=-1), "expected a weight of at least 0 for 'rate-distortion'"),
        (Phase("a", 4, {"t": Ramp(1, 0, 2)}, rd_weight=0), "nothing is trained in its step 2"),
        (Phase("a", 4, {"t": 1.0}, rd_weight=0, every=2), "nothing is trained in its step 1"),
        (Phase("a", 4, {"t": 1.0}, rd_weight=0, balance=0.5), "balance compares gradients"),
    ],
)
def test_a_phase_that_cannot_train_is_refused(phase, message):
    with pytest.raises(RecipeError, match=f"schedule: phase 'a': {message}"):
        Timeline([phase], 4, ["t"])


def test_without_rate_distortion_only_the_terms_train(recipe, teacher_file, tmp_path, plugins):
    """Distillation of an encoder on its latents alone: the decoder and the entropy model do not move."""
    r = recipe(losses={"kd.latent": {}}, teacher=teacher_file, schedule={"name": "core.constant", "rd_weight": 0.0})
    short = distillkit.train(r.model_copy(update={"num_steps": 1}), tmp_path / "short", plugins=plugins)
    long = distillkit.train(r, tmp_path / "long", plugins=plugins)
    before, after = weights(short), weights(long)
    for part, stays in (("g_a", False), ("g_s", True)):
        kernels = {name: tensor for name, tensor in before.items() if name.startswith(part) and name.endswith("weight")}
        assert same(kernels, {name: after[name] for name in kernels}) == stays
