"""What replaces the quantiser in training: uniform noise, or rounding with a straight-through gradient."""

from __future__ import annotations

from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import PairError

Surrogate = Literal["noise", "rounding"]

#: Attributes by which CompressAI's latent codecs choose, and their values.
_CHOICES = {
    "quantizer": {"noise": "noise", "rounding": "ste"},
    "forward_method": {"noise": "onepass", "rounding": "twopass"},
}


def set_surrogate(module: nn.Module, surrogate: Surrogate | None) -> None:
    """Choose what a codec's decoder receives in training; the rate is estimated under noise either way.

    It works on CompressAI's entropy models and latent codecs, wherever in the module they are, and changes no state.

    Args:
        module: the codec.
        surrogate: `noise` adds uniform noise of one quantisation step, `rounding` rounds and lets the gradient pass;
            None restores the codec's own.

    Raises:
        PairError: the module has none of them.

    Source: Balle et al. (2017), arXiv 1611.01704, for noise; Theis et al. (2017), arXiv 1703.00395, for rounding with a
    straight-through gradient; Minnen and Singh (2020), arXiv 2007.08739, for rounding beside a rate under noise.
    """
    found = False
    for part in module.modules():
        if hasattr(part, "_quantized_cdf") and callable(getattr(part, "quantize", None)):
            found = True
            if surrogate == "rounding":
                _install(part)
            part.__dict__["_distillkit_rounds"] = surrogate == "rounding"
        if any(getattr(part, name, None) in values.values() for name, values in _CHOICES.items()):
            if surrogate is not None and "_distillkit_surrogate" not in part.__dict__:
                part.register_forward_pre_hook(_choose)
                part.register_forward_hook(_undo, always_call=True)
            part.__dict__["_distillkit_surrogate"] = surrogate
    if surrogate is not None and not found:
        raise PairError(
            f"codec {type(module).__name__}: expected CompressAI's entropy models, to change the surrogate of its "
            f"quantiser to {surrogate}, got none. Leave `surrogate` out, or override set_surrogate in its "
            "distillkit.CodecAdapter."
        )


def _choose(part: Any, _args: Any) -> None:
    """Change what a latent codec does in training, for one forward pass."""
    part.__dict__["_distillkit_own"] = own = {name: getattr(part, name) for name in _CHOICES if hasattr(part, name)}
    if part.training and part._distillkit_surrogate is not None:
        for name in own:
            setattr(part, name, _CHOICES[name][part._distillkit_surrogate])


def _undo(part: Any, *_: Any) -> None:
    for name, value in part.__dict__.pop("_distillkit_own", {}).items():
        setattr(part, name, value)


def _install(part: nn.Module) -> None:
    """Let an entropy model round where `_distillkit_rounds` says so; what is installed survives a deep copy."""
    if "_distillkit_quantize" in part.__dict__:
        return
    part.__dict__["_distillkit_quantize"] = part.__dict__.get("quantize")  # of the object itself, if it has one
    part.__dict__["_distillkit_inside"] = False
    part.__dict__["quantize"] = MethodType(_quantize, part)
    part.register_forward_pre_hook(_enter)
    part.register_forward_hook(_leave, with_kwargs=True, always_call=True)


def _quantize(part: Any, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
    own = part.__dict__["_distillkit_quantize"] or MethodType(type(part).quantize, part)
    if mode != "noise" or not part._distillkit_rounds or part._distillkit_inside:
        return own(inputs, mode, means)
    return inputs + (own(inputs, "dequantize", means) - inputs).detach()


def _enter(part: nn.Module, _args: Any) -> None:
    part.__dict__["_distillkit_inside"] = True  # the rate is estimated under noise


def _leave(part: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    part.__dict__["_distillkit_inside"] = False
    if output is None or not part._distillkit_rounds or not kwargs.get("training", part.training):
        return output
    with torch.no_grad():
        rounded = part.forward(*args, **{**kwargs, "training": False})[0]
    return args[0] + (rounded - args[0]).detach(), *output[1:]
