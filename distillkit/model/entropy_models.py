"""CompressAI's entropy models in training: in float32, and without a device that waits."""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

_OWN = "_distillkit_forward"


def prepare_entropy_models(module: nn.Module) -> None:
    """Keep a codec's entropy models (modules that hold a `_quantized_cdf` table) in float32 under mixed precision.

    Differences of cumulative probabilities are meaningless in bfloat16. An `EntropyBottleneck` of CompressAI's also
    gets a forward pass of the same results in which nothing waits: its own reads the order of the dimensions back from
    the device, number by number. One of a fork that does something else keeps its own. What is put in survives a deep
    copy, and `torch.compile` can trace it.

    Args:
        module: the codec; calling this again changes nothing.
    """
    for part in module.modules():
        if hasattr(part, "_quantized_cdf") and _OWN not in part.__dict__:
            own = _bottleneck if _is_bottleneck(part) else type(part).forward
            part.__dict__[_OWN] = part.__dict__.get("forward") or MethodType(own, part)
            part.__dict__["forward"] = MethodType(_in_float32, part)
            part.register_forward_pre_hook(_inputs_in_float32, with_kwargs=True)


def _inputs_in_float32(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_to_float32, args)), {key: _to_float32(value) for key, value in kwargs.items()}


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _in_float32(part: nn.Module, *args: Any, **kwargs: Any) -> Any:
    device = next((value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), "cpu")
    with torch.autocast(device, enabled=False):
        return cast(Any, part)._distillkit_forward(*args, **kwargs)


def _is_bottleneck(part: nn.Module) -> bool:
    forward = type(part).forward
    named = forward.__module__.startswith("compressai.") and forward.__qualname__ == "EntropyBottleneck.forward"
    return named and _gives_the_same(part)


@torch.no_grad()
def _gives_the_same(part: Any) -> bool:
    """Return whether `_bottleneck` gives what a bottleneck's own forward gives, with noise (on the CPU) and without."""
    try:
        medians = part._get_medians()
        values = torch.linspace(-3, 3, 4 * len(medians), device=medians.device).view(1, -1, 2, 2)
        with torch.random.fork_rng(devices=[]):
            for adds_noise in (True, False) if values.device.type == "cpu" else (False,):
                both: list[Any] = []
                for forward in (type(part).forward, _bottleneck):
                    torch.default_generator.manual_seed(0)
                    both.append(forward(part, values, adds_noise))
                if not all(torch.equal(theirs, ours) for theirs, ours in zip(*both, strict=True)):
                    return False
    except Exception:  # of a fork's: it lacks an option, or returns something else
        return False
    return True


def _bottleneck(part: Any, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
    """Return a latent with noise, or rounded, and its likelihoods, both of shape (B, C, ...)."""
    adds_noise = part.training if training is None else training
    by_channel = x.transpose(0, 1).contiguous()
    values = by_channel.flatten(1)[:, None]  # (C, 1, B * h * w), the order in which noise is drawn
    outputs = part.quantize(values, "noise" if adds_noise else "dequantize", part._get_medians())
    likelihood = part._likelihood(outputs)  # newer versions return the ends as well
    likelihood = likelihood[0] if isinstance(likelihood, tuple) else likelihood
    if part.use_likelihood_bound:
        likelihood = part.likelihood_lower_bound(likelihood)
    results = (each.view(by_channel.shape).transpose(0, 1).contiguous() for each in (outputs, likelihood))
    return next(results), next(results)
