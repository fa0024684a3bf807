"""The kit for plugin authors: what every component must do, as functions to call from a test.

    def test_gram():
        distillkit.testing.check_loss_term(GramAlignment)

Each check raises an `AssertionError` that names what is wrong, and runs in seconds on a CPU.
`distillkit.testing.pytest_plugin` has fixtures for a training run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from ..errors import DistillkitError
from ..hooks.components import validate
from ..hooks.loader import load_plugins
from ..model.adapters import CodecAdapter, CodecOutput, as_codec
from ..taps.bank import TapBank, TapShape, TapShapes
from ..taps.pair import TapPair
from ..taps.provider import TapProvider, find_taps
from ..taps.sampled import tap_and_stride
from ..training.losses import Calibration, LossTerm, Step
from ..training.phases import PhaseSchedule, Timeline

_ROLES = {
    **{"analysis.1/2": 32, "analysis.1/4": 16, "analysis.1/8": 8, "synthesis.1/8": 8},
    **{"latent": 4, "quantised_latent": 4, "hyper_latent": 1, "quantised_hyper_latent": 1},
}
Config = TypeVar("Config", bound=BaseModel)


def check_loss_term(
    term: type[LossTerm], *, same_channels: bool = False, zero_where_equal: bool = False, **options: Any
) -> None:
    """Check a loss term on made-up features.

    It gives a finite scalar, in bfloat16 too, sends gradient to the student and to each parameter that it has, leaves
    the features as they are, gives the same value after its state is saved and loaded; its options can be written in a
    recipe, and its calibration in a file. A term that compares features of one width only may refuse others with a
    `ValueError`.

    Args:
        term: the class.
        same_channels: give teacher and student features of one width (by default the teacher's are wider).
        zero_where_equal: the loss must be 0 where both sides have the same features; implies `same_channels`.
        options: of its `Config`.
    """
    torch.manual_seed(0)
    name = term.__name__
    config = checked_config(term.Config, options, name)
    same_channels = same_channels or zero_where_equal
    student, teacher = _shapes(6), _shapes(6 if same_channels else 10)
    shapes = TapShapes(student, teacher)
    try:
        first, second = term(config, shapes), term(config, shapes)
    except ValueError as error:
        if same_channels:
            raise AssertionError(f"{name}: refuses taps of equal width: {error}") from error
        return  # a term that compares like with like may refuse other widths
    wanted = {role: tap_and_stride(role) for role in first.required_taps()}
    unknown = {tap for tap, _ in wanted.values()} - set(student)
    assert not unknown, f"{name}: required_taps() names roles that the kit does not have: {sorted(unknown)}"
    if first.needs_calibration:
        record = json.loads(json.dumps(first.calibrate(_calibration(teacher["latent"].channels))))
        for each in (first, second):
            each.load_calibration(record)
            assert not each.needs_calibration, f"{name}: still needs calibration after load_calibration"
    taps = {
        role: TapPair(_features(student[tap], stride).requires_grad_(), _features(teacher[tap], stride))
        for role, (tap, stride) in wanted.items()
    }
    images = torch.rand(4, 3, 64, 64)
    output, other = (CodecOutput(torch.rand(4, 3, 64, 64), {"y": torch.rand(4, 6, 4, 4)}) for _ in range(2))
    given = [output.x_hat.requires_grad_(), output.likelihoods["y"].requires_grad_()]
    step = Step(images, output, taps, teacher_output=other if term.needs_teacher_output else None)
    torch.manual_seed(1)  # a term may draw at random
    loss = first(step)
    assert loss.ndim == 0, f"{name}: expected a scalar, got shape {tuple(loss.shape)}"
    assert bool(loss.isfinite()), f"{name}: expected a finite loss, got {loss.item()}"
    loss.backward()
    for role, pair in taps.items():
        moved = pair.student.grad is not None and bool(pair.student.grad.abs().sum() > 0)
        assert moved, f"{name}: no gradient reaches the student's tap '{role}'"
        for side, features in pair._asdict().items():
            assert features._version == 0, f"{name}: changes the {side}'s tap '{role}' in place"
    if term.needs_teacher_output:
        moved = bool(taps) or any(each.grad is not None for each in given)
        assert moved, f"{name}: no gradient reaches the student"
    for parameter_name, parameter in first.named_parameters():
        assert parameter.grad is not None, f"{name}: no gradient reaches its parameter '{parameter_name}'"
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1)
    assert torch.equal(second(step), loss), f"{name}: another value after saving and loading its state"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = {role: TapPair(*(features.bfloat16() for features in pair)) for role, pair in taps.items()}
        loss = first(replace(step, taps=half))
    assert bool(loss.isfinite()), f"{name}: expected a finite loss of bfloat16 features, got {loss.item()}"
    if zero_where_equal:
        equal = {role: TapPair(pair.teacher, pair.teacher) for role, pair in taps.items()}
        same = other if term.needs_teacher_output else CodecOutput(images, other.likelihoods)
        loss = first(replace(step, output=same, taps=equal))
        assert abs(loss.item()) < 1e-5, f"{name}: expected 0 where both sides are equal, got {loss.item()}"


def check_schedule(schedule: type[PhaseSchedule], terms: list[str], **options: Any) -> None:
    """Check a schedule: for runs of many lengths its phases add up, and weights and learning rates are above zero.

    It must give the same answer each time, and also work for the control, which has the same phases without terms.

    Args:
        schedule: the class.
        terms: full names of the loss terms of the run.
        options: of its `Config`.
    """
    name = schedule.__name__
    built = schedule(checked_config(schedule.Config, options, name))
    for num_steps in (3, 10, 97, 1000):
        with as_checks(name):
            timeline, control = (_timeline(built, num_steps, each) for each in (terms, []))
        assert built.phases(num_steps, terms) == built.phases(num_steps, terms), f"{name}: other phases if asked twice"
        for phase in timeline.phases:
            assert phase.learning_rate > 0, f"{name}: learning rate x {phase.learning_rate} in phase {phase.name}"
        for step in range(num_steps):
            index, place = timeline.at(step)
            for term, weight in timeline.phases[index].weights_at(place).items():
                assert 0 < weight < float("inf"), f"{name}: weight {weight} of {term} at step {step}"
        lengths = [[(each.name, each.num_steps) for each in phases] for phases in (timeline.phases, control.phases)]
        assert lengths[0] == lengths[1], f"{name}: expected the same phases for a control, got {lengths[1]}"


def _timeline(schedule: PhaseSchedule, num_steps: int, terms: list[str]) -> Timeline:
    phases = schedule.phases(num_steps, terms)
    return Timeline(phases if terms else [phase.without_teacher([]) for phase in phases], num_steps, terms)


def check_taps(
    provider: type[TapProvider], codec: nn.Module | CodecAdapter | None = None, *, size: int = 64, **options: Any
) -> None:
    """Check a provider of taps: what it finds exists, fires once, and has the resolution that its role says.

    The roles must be the same for larger images, and `latent` among them.

    Args:
        provider: the class.
        codec: where it should find taps; by default teacher and student of `models.cheng2020`.
        size: side of the square test images in pixels; a multiple of the codec's stride.
        options: of its `Config`.
    """
    name = provider.__name__
    built = provider(checked_config(provider.Config, options, name))
    codecs = [codec]
    if codec is None:
        pair_class, config = load_plugins().configure("pair", "models.cheng2020", {}, name)
        codecs = [pair_class(config).build_teacher(), pair_class(config).build_student()]
    for each in codecs:
        adapter = as_codec(each) if each is not None else None
        assert adapter is not None
        with as_checks(name):
            taps, larger = (find_taps(adapter, built, (side, side)) for side in (size, 2 * size))
            _, shapes = TapBank(adapter, taps, "codec").probe(torch.rand(1, adapter.samples.channels, size, size))
        assert taps == larger, f"{name}: other taps for larger images: {taps} against {larger}"
        assert "latent" in taps, f"{name}: expected the role 'latent', found {', '.join(taps) or 'none'}"
        for role, shape in shapes.items():
            place, _, reduction = role.partition(".1/")
            if place in ("analysis", "synthesis"):
                expected = size // int(reduction)
                assert shape.height == expected, f"{name}: {role}: expected height {expected}, got {shape.height}"


@contextmanager
def as_checks(name: str) -> Generator[None]:
    """Turn an error that a user would see into a failed check."""
    try:
        yield
    except (DistillkitError, ValueError) as error:
        raise AssertionError(f"{name}: {error}") from error


def checked_config(model: type[Config], options: dict[str, Any], name: str) -> Config:
    """Return the options, which must be the same after the recipe was written to a file and read."""
    with as_checks(name):
        config = validate(model, options, name)
        again = validate(model, json.loads(config.model_dump_json()), name)
    assert again == config, f"{name}: options change on their way through a recipe: {config!r} to {again!r}"
    return config


def _shapes(channels: int) -> dict[str, TapShape]:
    shapes = {role: TapShape(channels, side, side) for role, side in _ROLES.items()}
    shapes["reconstruction"] = TapShape(3, 64, 64)
    shapes["hyper_parameters"] = shapes["entropy_parameters"] = TapShape(2 * channels, 4, 4)
    return shapes


def _features(shape: TapShape, stride: int) -> Tensor:
    return torch.randn(4, shape.channels, shape.height // stride, shape.width // stride)


def _calibration(num_channels: int) -> Calibration:
    class Likelihoods(nn.Module):
        def forward(self, images: Tensor) -> CodecOutput:
            levels = torch.linspace(0.1, 0.9, num_channels).view(1, -1, 1, 1)
            return CodecOutput(images, {"y": levels.expand(images.shape[0], -1, 4, 4)})

    def batches(num_crops: int) -> Iterator[Tensor]:
        yield torch.rand(min(2, num_crops), 3, 64, 64)

    teacher: Callable[[Tensor], CodecOutput] = Likelihoods()
    return Calibration(teacher, batches)
