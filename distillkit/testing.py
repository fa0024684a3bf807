"""The kit for plugin authors: what every component must do, as functions to call from a test.

    def test_gram():
        distillkit.testing.check_loss_term(GramAlignment)

Each check raises an `AssertionError` that says what is wrong, and runs in seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import CodecAdapter, CodecOutput, as_codec
from .components import validate
from .losses import Calibration, LossTerm, Step, TapPair, rate_distortion
from .pair import CodecPair, TeachingPair, find_taps
from .phases import PhaseSchedule, Timeline
from .plugins import Plugins, load_plugins
from .taps import TapShape, TapShapes

_ROLES = {"analysis.1/2": 32, "analysis.1/4": 16, "analysis.1/8": 8, "latent": 4, "synthesis.1/8": 8, "hyper_latent": 1}


def check_loss_term(term: type[LossTerm], *, same_channels: bool = False, **options: Any) -> None:
    """Check a loss term on made-up features.

    It gives a finite scalar, sends gradient to the student and to each of its own parameters, leaves the features as
    they are, gives the same value after its state is saved and loaded, and its calibration can be recorded. A term that
    compares features of one width only may refuse others with a `ValueError`.

    Args:
        term: the class.
        same_channels: give teacher and student features of one width (by default the teacher's are wider).
        options: of its `Config`.
    """
    torch.manual_seed(0)
    config = validate(term.Config, options, term.__name__)
    student, teacher = _shapes(6), _shapes(6 if same_channels else 10)
    shapes = TapShapes(student, teacher)
    try:
        first, second = term(config, shapes), term(config, shapes)
    except ValueError as error:
        if same_channels:
            raise AssertionError(f"{term.__name__}: refuses taps of equal width: {error}") from None
        return  # a term that compares like with like may refuse other widths
    unknown = first.required_taps() - set(student)
    assert not unknown, f"{term.__name__}: required_taps() names roles that the kit has not: {sorted(unknown)}"
    if first.needs_calibration:
        record = first.calibrate(_calibration(teacher["latent"].channels))
        for each in (first, second):
            each.load_calibration(record)
            assert not each.needs_calibration, f"{term.__name__}: still needs calibration after load_calibration"
    taps = {
        role: TapPair(torch.randn(4, *student[role], requires_grad=True), torch.randn(4, *teacher[role]))
        for role in first.required_taps()
    }
    images = torch.rand(4, 3, 64, 64)
    step = Step(images, CodecOutput(images.clone().requires_grad_(), {"y": torch.full((4, 6, 4, 4), 0.5)}), taps)
    torch.manual_seed(1)  # a term may draw at random
    loss = first(step)
    assert loss.ndim == 0, f"{term.__name__}: expected a scalar, got shape {tuple(loss.shape)}"
    assert bool(loss.isfinite()), f"{term.__name__}: expected a finite loss, got {loss.item()}"
    loss.backward()
    for role, pair in taps.items():
        moved = pair.student.grad is not None and bool(pair.student.grad.abs().sum() > 0)
        assert moved, f"{term.__name__}: no gradient reaches the student's tap '{role}'"
        for side, features in pair._asdict().items():
            assert features._version == 0, f"{term.__name__}: changes the {side}'s tap '{role}' in place"
    for name, parameter in first.named_parameters():
        assert parameter.grad is not None, f"{term.__name__}: no gradient reaches its parameter '{name}'"
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1)
    assert torch.equal(second(step), loss), f"{term.__name__}: another value after saving and loading its state"


def check_pair(pair: type[CodecPair], *, size: int = 64, plugins: Plugins | None = None, **options: Any) -> None:
    """Check a pair: it fits together, both codecs train a step, and both compress to bytes and decode to one image.

    Args:
        pair: the class.
        size: side of the square test images in pixels.
        plugins: has the provider of taps; by default the installed plugins.
        options: of its `Config`.
    """
    torch.manual_seed(0)
    built = pair(validate(pair.Config, options, pair.__name__))
    teacher, student = as_codec(built.build_teacher()), as_codec(built.build_student())
    provider_class, config = (plugins or load_plugins()).configure("taps", "models.by_resolution", {}, pair.__name__)
    taps = [
        given or find_taps(codec, provider_class(config), (size, size))
        for given, codec in ((built.teacher_taps(), teacher), (built.student_taps(), student))
    ]
    for codec in (teacher, student):
        _check_codec(codec, size)
    teaching = TeachingPair(teacher, student, (taps[0], taps[1]))
    shapes = teaching.probe((size, size)).shapes
    assert shapes.student, f"{pair.__name__}: teacher and student share no tap"
    features = teaching.run_teacher(torch.rand(1, 3, size, size), list(shapes.teacher))
    assert not any(tensor.requires_grad for tensor in features.values()), f"{pair.__name__}: the teacher is not frozen"


def check_schedule(schedule: type[PhaseSchedule], terms: list[str], **options: Any) -> None:
    """Check a schedule: for runs of many lengths its phases add up and their weights are finite and not negative.

    Args:
        schedule: the class.
        terms: full names of the loss terms of the run.
        options: of its `Config`.
    """
    built = schedule(validate(schedule.Config, options, schedule.__name__))
    for num_steps in (3, 10, 97, 1000):
        timeline = Timeline(built.phases(num_steps, terms), num_steps, terms)
        for step in range(num_steps):
            index, place = timeline.at(step)
            for name, weight in timeline.phases[index].weights_at(place).items():
                assert 0 < weight < float("inf"), f"{schedule.__name__}: weight {weight} of {name} at step {step}"


def _shapes(channels: int) -> dict[str, TapShape]:
    shapes = {role: TapShape(channels, side, side) for role, side in _ROLES.items()}
    shapes["reconstruction"] = TapShape(3, 64, 64)
    shapes["hyper_parameters"] = shapes["entropy_parameters"] = TapShape(2 * channels, 4, 4)
    return shapes


def _check_codec(codec: CodecAdapter, size: int) -> None:
    name = type(codec.module).__name__
    codec.module.train()
    before = [parameter.detach().clone() for parameter in codec.module.parameters()]
    images = torch.rand(2, 3, size, size)
    optimizer = torch.optim.Adam(codec.module.parameters(), 1e-3)
    rate_distortion(codec.forward(images), images, 0.01).cost.backward()
    optimizer.step()
    changed = any(not torch.equal(a, b) for a, b in zip(before, codec.module.parameters(), strict=True))
    assert changed, f"{name}: a training step changed no parameter"
    aux_loss = codec.aux_loss()
    assert (aux_loss is not None) == bool(codec.quantile_parameters()), f"{name}: aux_loss and quantiles do not agree"
    codec.module.eval()
    codec.update()
    with torch.no_grad():
        latents = codec.compress(images[:1])
        decoded = codec.decompress(latents)
        assert decoded.shape == images[:1].shape, (
            f"{name}: decoded {tuple(decoded.shape)} from {tuple(images[:1].shape)}"
        )
        assert torch.equal(decoded, codec.decompress(latents)), f"{name}: the same bytes decode to two images"


def _calibration(num_channels: int) -> Calibration:
    class Likelihoods(nn.Module):
        def forward(self, images: Tensor) -> CodecOutput:
            levels = torch.linspace(0.1, 0.9, num_channels).view(1, -1, 1, 1)
            return CodecOutput(images, {"y": levels.expand(images.shape[0], -1, 4, 4)})

    def batches(num_crops: int) -> Iterator[Tensor]:
        yield torch.rand(min(2, num_crops), 3, 64, 64)

    teacher: Callable[[Tensor], CodecOutput] = Likelihoods()
    return Calibration(teacher, batches)
