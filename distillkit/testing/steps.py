"""Checks of what moves the weights: optimisers, schedules of the learning rate, and step extensions."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..hooks.loader import load_plugins
from ..model.adapters import CodecAdapter, as_codec
from ..training.extensions.base import StepExtension, Trained
from ..training.folder.checkpoint import pack, unpack
from ..training.objectives.objective import rate_distortion
from ..training.pace.optimizers import OptimizerBuilder
from ..training.pace.rates import RateSchedule
from .kit import as_checks, checked_config


def check_optimizer(builder: type[OptimizerBuilder], *, learning_rate: float = 0.01, **options: Any) -> None:
    """Check an optimiser: it lowers a loss, does not change what has no gradient, and resumes bit for bit.

    Args:
        builder: the class.
        learning_rate: to test with.
        options: of its `Config`.
    """
    name = builder.__name__
    built = builder(checked_config(builder.Config, options, name))

    def fresh() -> tuple[nn.Module, Tensor, Any]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 1, bias=False), nn.Conv2d(1, 1, 1))
        network[3].requires_grad_(False)
        return network, torch.rand(4, 3, 8, 8), built.build(list(network.parameters()), learning_rate)

    def steps(network: nn.Module, images: Tensor, optimizer: Any, number: int) -> list[float]:
        losses: list[float] = []
        for _ in range(number):
            optimizer.zero_grad()
            loss = (network(images) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    network, images, optimizer = fresh()
    frozen = [parameter.detach().clone() for parameter in network[3].parameters()]  # type: ignore[index]
    assert all(group["lr"] == learning_rate for group in optimizer.param_groups), f"{name}: another learning rate"
    losses = steps(network, images, optimizer, 25)
    assert losses[-1] < losses[0], f"{name}: the loss rose from {losses[0]} to {losses[-1]} in 25 steps"
    unmoved = all(torch.equal(a, b) for a, b in zip(frozen, network[3].parameters(), strict=True))  # type: ignore[index]
    assert unmoved, f"{name}: moves parameters that have no gradient"

    state = _through_a_file(name, {"network": network.state_dict(), "optimizer": optimizer.state_dict()})
    other, images, again = fresh()
    other.load_state_dict(state["network"])
    again.load_state_dict(state["optimizer"])
    assert steps(network, images, optimizer, 3) == steps(other, images, again, 3), f"{name}: other steps after a resume"
    weights = [each.detach().clone() for each in network.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps(network, images, optimizer, 1)
    same = all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
    assert same, f"{name}: moves weights at learning rate 0; it must follow the group's `lr`"


def check_rate_schedule(schedule: type[RateSchedule], **options: Any) -> None:
    """Check a rate schedule: its factors lie in [0, 1], begin above 0, and follow from step, length and state.

    Args:
        schedule: the class.
        options: of its `Config`.
    """
    name = schedule.__name__
    config = checked_config(schedule.Config, options, name)
    for num_steps in (1, 10, 97):
        built, costs = schedule(config), [1.0, 0.5, 0.6, 0.6, 0.6]
        for step in range(num_steps):
            factor = built.factor(step, num_steps)
            assert 0 <= factor <= 1, f"{name}: expected a factor in [0, 1], got {factor} at step {step} of {num_steps}"
            assert step or factor > 0, f"{name}: the first step's factor is 0"
            assert built.factor(step, num_steps) == factor, f"{name}: another factor if asked twice"
            built.validated(costs[step % len(costs)])
            resumed = schedule(config)
            resumed.load_state_dict(_through_a_file(name, built.state_dict()))
            same = resumed.factor(step + 1, num_steps + 1) == built.factor(step + 1, num_steps + 1)
            assert same, f"{name}: another factor after its state is saved and loaded"


def check_step_extension(
    extension: type[StepExtension],
    codecs: Callable[[], tuple[nn.Module | CodecAdapter, nn.Module | CodecAdapter]] | None = None,
    *,
    crop: int = 64,
    **options: Any,
) -> None:
    """Check a step extension in eight steps: finite weights, the same ones after a resume, and no trace of `as_saved`.

    Args:
        extension: the class.
        codecs: builds the codec to be trained and a teacher; by default a mean-scale hyperprior in two sizes.
        crop: side of the images in pixels.
        options: of its `Config`.
    """
    name = extension.__name__
    config = checked_config(extension.Config, options, name)

    def fresh() -> tuple[StepExtension, Any]:
        torch.manual_seed(0)
        student, teacher = map(as_codec, (codecs or _sizes_of_one_codec)())
        teacher.module.requires_grad_(False).eval()
        with as_checks(name):
            built = extension(config, Trained(student, teacher, 8, crop))
        return built, torch.optim.Adam(built.codec.module.parameters(), 1e-3)

    def steps(built: StepExtension, optimizer: Any, first: int, last: int) -> None:
        built.codec.module.train()
        for step in range(first, last):
            torch.manual_seed(step)
            images = torch.rand(1, built.codec.samples.channels, crop, crop)
            optimizer.zero_grad()
            rate_distortion(built.codec.forward(images), images, 0.01).cost.backward()
            built.after_backward(step)
            optimizer.step()
            built.after_step(step)

    whole, optimizer = fresh()
    steps(whole, optimizer, 0, 4)
    module = whole.codec.module
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "extension": whole.state_dict()}
    state = _through_a_file(name, copy.deepcopy(state))
    before = copy.deepcopy(module.state_dict())
    with whole.as_saved(whole.codec) as codec, torch.no_grad():
        training = codec.module.training
        codec.module.eval()
        assert bool(codec.forward(torch.rand(1, codec.samples.channels, crop, crop)).x_hat.isfinite().all()), (
            f"{name}: not finite"
        )
        codec.module.train(training)
    same = all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert same, f"{name}: as_saved leaves the codec changed"
    steps(whole, optimizer, 4, 8)
    resumed, again = fresh()
    resumed.codec.module.load_state_dict(state["module"])
    again.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["extension"])
    steps(resumed, again, 4, 8)
    saved: list[dict[str, Tensor]] = []
    for built in (whole, resumed):
        with built.as_saved(built.codec) as codec:
            saved.append({key: value.detach().clone() for key, value in codec.module.state_dict().items()})
    same = all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
    assert same, f"{name}: another model after its state is saved and loaded"


def _through_a_file(name: str, state: dict[str, Any]) -> Any:
    """Return the state as a checkpoint gives it back."""
    tensors: dict[str, Tensor] = {}
    try:
        packed = json.loads(json.dumps(pack(state, tensors)))
    except TypeError as error:
        raise AssertionError(f"{name}: its state cannot be saved in a checkpoint: {error}") from None
    return unpack(packed, {key: tensor.clone() for key, tensor in tensors.items()})


def _sizes_of_one_codec() -> tuple[nn.Module | CodecAdapter, nn.Module | CodecAdapter]:
    plugins = load_plugins()
    pair_class, small = plugins.configure(
        "pair", "models.compressai", {"student": {"architecture": "mbt2018-mean", "N": 8, "M": 16}}, "check"
    )
    _, large = plugins.configure(
        "pair", "models.compressai", {"student": {"architecture": "mbt2018-mean", "N": 12, "M": 16}}, "check"
    )
    return pair_class(small).build_student(), pair_class(large).build_student()
