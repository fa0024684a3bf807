"""Every registered component keeps its contract; a component that is added is tested without a line here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torchvision.models import alexnet

import distillkit
from distillkit import testing
from distillkit.export.export import export_model
from distillkit.model.adapters import as_codec, fingerprint
from distillkit.model.file import save_model

COMPONENTS = distillkit.load_plugins().components
WHOLE = sorted(set(COMPONENTS["pair"]) - {"models.light"})  #: pairs whose students are trained whole
FEDS_TERMS = ["feds.alignment", "feds.channel_entropy"]


@pytest.mark.parametrize("name", COMPONENTS["loss"])
@pytest.mark.parametrize("same_channels", [True, False])
def test_loss_term(name, same_channels):
    testing.check_loss_term(COMPONENTS["loss"][name], same_channels=same_channels)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPONENTS["pair"])
def test_pair(name):
    testing.check_pair(COMPONENTS["pair"][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPONENTS["pair"])
@pytest.mark.parametrize("part", ["teacher", "student"])
def test_a_codec_of_every_pair_is_saved_and_loaded_alone(name, part, tmp_path):
    pair = COMPONENTS["pair"][name](COMPONENTS["pair"][name].Config())
    codec = as_codec(pair.build_teacher() if part == "teacher" else pair.build_student())
    save_model(tmp_path / "model.safetensors", codec, name, pair.options_of(part, codec.module), part, 0.013)
    loaded = distillkit.load_model(tmp_path / "model.safetensors")
    assert loaded.fingerprint == fingerprint(loaded.codec.module) == fingerprint(codec.module)
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    data = distillkit.ImageCodec(codec, loaded.fingerprint).encode(picture)
    before = distillkit.ImageCodec(codec, loaded.fingerprint).decode(data)
    assert np.array_equal(distillkit.ImageCodec(loaded.codec, loaded.fingerprint).decode(data), before)


@pytest.mark.parametrize("name", WHOLE)
def test_every_pair_trains_under_noise_and_under_rounding(name):
    codec = as_codec(COMPONENTS["pair"][name](COMPONENTS["pair"][name].Config()).build_student())
    codec.module.train()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for surrogate in ("noise", "rounding"):
        codec.set_surrogate(surrogate)
        first, second = (codec.forward(images).x_hat for _ in range(2))
        assert torch.equal(first, second) == (surrogate == "rounding")


@pytest.mark.parametrize("name", WHOLE)
def test_every_pair_goes_the_whole_way(name, recipe, tmp_path):
    """A step of each phase of FEDS, an export, and real bytes that the exported student's file decodes alike."""
    data = {"train": recipe().data.train, "crop": 64, "batch_size": 1}
    common = {"pair": {"name": name}, "data": data}
    first = recipe(**common, trains="teacher", num_steps=1, schedule={"name": "core.constant"})
    teacher = distillkit.train(first, tmp_path / "teacher")
    losses = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 1}}
    run = tmp_path / "student"
    distillkit.train(recipe(**common, losses=losses, teacher=teacher, num_steps=5, log_every=1), run)
    phases = [json.loads(line)["phase"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert phases == ["align", "align", "channel", "channel", "finetune"]
    student = distillkit.load_model(run)
    export_model(student, "model", tmp_path / "exported.safetensors")
    exported = distillkit.load_model(tmp_path / "exported.safetensors")
    assert exported.fingerprint == student.fingerprint
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    codec = distillkit.ImageCodec(student.codec, student.fingerprint)
    data = codec.encode(picture)
    assert np.array_equal(distillkit.ImageCodec(exported.codec, exported.fingerprint).decode(data), codec.decode(data))


@pytest.mark.parametrize("name", COMPONENTS["objective"])
def test_objective(name, tmp_path):
    options = {}
    if name == "core.lpips":
        options["weights"] = tmp_path / "alexnet.pth"
        torch.manual_seed(0)
        torch.save(alexnet(weights=None).state_dict(), options["weights"])
    testing.check_objective(COMPONENTS["objective"][name], **options)


@pytest.mark.parametrize("name", COMPONENTS["schedule"])
@pytest.mark.parametrize("terms", [FEDS_TERMS, FEDS_TERMS[:1], FEDS_TERMS[1:], []])
def test_schedule(name, terms):
    listed = [{"name": "a", "share": 0.7, "weights": dict.fromkeys(terms, 0.5)}, {"name": "b", "share": 0.3}]
    testing.check_schedule(COMPONENTS["schedule"][name], terms, **({"phases": listed} if name == "core.phases" else {}))


@pytest.mark.parametrize("name", COMPONENTS["optimizer"])
def test_optimizer(name):
    testing.check_optimizer(COMPONENTS["optimizer"][name])


@pytest.mark.parametrize("name", COMPONENTS["rate"])
def test_rate_schedule(name):
    testing.check_rate_schedule(COMPONENTS["rate"][name], **({"at": [3, 5]} if name == "core.step" else {}))


@pytest.mark.parametrize("name", COMPONENTS["extension"])
def test_step_extension(name):
    testing.check_step_extension(COMPONENTS["extension"][name])


@pytest.mark.parametrize("name", COMPONENTS["taps"])
def test_tap_provider_finds_the_stages_of_every_pair(name):
    provider = COMPONENTS["taps"][name](COMPONENTS["taps"][name].Config())
    for pair in map(COMPONENTS["pair"].get, WHOLE):
        taps = distillkit.find_taps(pair(pair.Config()).build_student(), provider, (64, 64))
        assert {"analysis.1/8", "latent", "synthesis.1/8", "reconstruction"} <= set(taps)


class TestTheKitItself:
    """A check that cannot fail is worth nothing."""

    class Detached(distillkit.LossTerm):
        def required_taps(self):
            return {"latent"}

        def forward(self, step):
            return step.taps["latent"].student.detach().sum().requires_grad_()

    class InPlace(distillkit.LossTerm):
        def required_taps(self):
            return {"latent"}

        def forward(self, step):
            student, teacher = step.taps["latent"]
            return (student.mean() - teacher.mul_(0).mean()).square()

    class NotScalar(distillkit.LossTerm):
        def required_taps(self):
            return {"latent"}

        def forward(self, step):
            return step.taps["latent"].student.mean(dim=(1, 2, 3))

    @pytest.mark.parametrize(
        ("term", "message"),
        [
            (Detached, "no gradient reaches the student"),
            (InPlace, "changes the teacher's tap"),
            (NotScalar, "expected a scalar"),
        ],
    )
    def test_catches(self, term, message):
        with pytest.raises(AssertionError, match=message):
            testing.check_loss_term(term)
