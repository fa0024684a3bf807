"""Teachers of one rate each that teach a student of many: each crop by the one of the nearest lambda."""

from __future__ import annotations

import pytest
import torch

import distillkit
from distillkit.errors import PairError, RecipeError
from distillkit.model.by_rate import NearestRate
from distillkit.model.precision import Precision
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve
from distillkit.training.teaching.teachers import Teachers

RANGE = {"low": 0.002, "high": 0.032}
GAINED = {"name": "small.gained"}
LOSSES = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}


@pytest.fixture(scope="module")
def files(photographs, tmp_path_factory):
    """Teachers for three lambdas at even distances by the logarithm, their file names in no order of them."""
    import tests.small_pair

    plugins, folder = distillkit.load_plugins(small=tests.small_pair), tmp_path_factory.mktemp("teachers")

    def train(lmbda, seed, **pair):
        recipe = distillkit.Recipe.create(
            trains="teacher",
            pair={"name": "small.pair", **pair},
            num_steps=2,
            lmbda=lmbda,
            seed=seed,
            data={"train": photographs, "crop": 64, "batch_size": 2},
            device="cpu",
        )
        return distillkit.train(recipe, folder / f"{lmbda}-{seed}", plugins=plugins)

    teachers = {"b": train(0.032, 1), "a": train(0.002, 2), "c": train(0.008, 3)}
    return teachers | {"wide": train(0.004, 4, teacher_latent=24), "again": train(0.008, 5)}


def three(files):
    return {name: files[name] for name in "bac"}


def test_the_lambda_of_a_crop_picks_its_teacher(recipe, files, plugins):
    r = resolve(recipe(pair=GAINED, lmbda=RANGE, losses={"feds.alignment": {}}, teachers=three(files)), plugins)
    setup = prepare(r, plugins)
    device = torch.device("cpu")
    images = torch.rand(4, 3, 64, 64)
    quality = torch.tensor([0.9, 0.1, 0.55, 0.2])  # lambdas .024, .0026, .0092, .0035
    teachers = Teachers(setup, r, device, Precision("fp32", device, []))
    (taught,) = teachers.teach(images, r.losses, quality).values()
    features = taught.taps
    for index, name in enumerate("baca"):
        alone = resolve(recipe(losses={"feds.alignment": {}}, teacher=files[name], lmbda=0.01), plugins)
        single = Teachers(prepare(alone, plugins), alone, device, Precision("fp32", device, []))
        (expected,) = single.teach(images[index : index + 1], alone.losses).values()
        assert len(features) > 1
        for role, feature in features.items():
            torch.testing.assert_close(feature[index : index + 1], expected.taps[role])


def test_a_run_trains_resumes_and_ranks_at_each_lambda(recipe, files, plugins, tmp_path):
    job = recipe(pair=GAINED, lmbda=RANGE, losses=LOSSES, teachers=three(files), num_steps=6, checkpoint_every=3)
    model = distillkit.train(job, tmp_path / "whole", plugins=plugins)

    class Stop:
        @distillkit.hookimpl
        def checkpoint_saved(self, step):
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distillkit.train(job, tmp_path / "parts", plugins=plugins, observers=[Stop()])
    again = distillkit.train(job, tmp_path / "parts", plugins=plugins)
    found, expected = (distillkit.load_model(file, plugins).codec.module.state_dict() for file in (again, model))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    record = next((tmp_path / "whole").rglob("*channel_entropy*.json")).read_text()
    assert record.count("0.25") >= 1  # ranked at fixed points of the range


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "wide"), "teachers.wide: expected the architecture of a"),
        (("a", "c", "again"), "teachers.again: expected another lmbda than that of c, got 0.008"),
        (("a", "variable"), "teachers.variable: expected a codec of one rate"),
    ],
)
def test_teachers_that_do_not_fit(recipe, files, plugins, tmp_path, names, message):
    if "variable" in names:
        job = recipe(pair=GAINED, lmbda=RANGE, trains="teacher", num_steps=1)
        files = files | {"variable": distillkit.train(job, tmp_path / "variable", plugins=plugins)}
    job = recipe(
        pair=GAINED, lmbda=RANGE, losses={"feds.alignment": {}}, teachers={name: files[name] for name in names}
    )
    with pytest.raises(PairError, match=message):
        distillkit.train(job, tmp_path / "run", plugins=plugins)


def test_a_student_of_one_rate_names_its_teacher(recipe, files, plugins, tmp_path):
    job = recipe(losses={"feds.alignment": {}}, teachers=three(files))
    with pytest.raises(RecipeError, match="expected one of the teachers, got none"):
        distillkit.train(job, tmp_path / "run", plugins=plugins)
    job = recipe(
        pair=GAINED, lmbda=RANGE, losses={"feds.alignment": {}}, teachers={"teachers": files["a"], "b": files["b"]}
    )
    with pytest.raises(RecipeError, match="teachers.teachers: this is the name of all of them together"):
        distillkit.train(job, tmp_path / "run", plugins=plugins)


def test_several_qualities_at_once_are_refused(files, plugins):
    models = {name: distillkit.load_model(file, plugins) for name, file in three(files).items()}
    codec = NearestRate(models)
    assert codec.lmbda == distillkit.LmbdaRange(0.002, 0.032)
    with pytest.raises(PairError, match="expected one quality at a time"):
        codec.forward(torch.rand(2, 3, 64, 64), torch.tensor([0.0, 1.0]))
