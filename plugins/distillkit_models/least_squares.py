"""Layers that are set by least squares from what they are given and what they should return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import distillkit

RIDGE = 1e-3  #: of the pull to the weights that a layer has, as a share of the mean power of its inputs


@torch.no_grad()
def fit(layer: nn.Conv2d, inputs: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    """Set a convolution of one group, in place, so that it gives `targets` for `inputs`.

    Args:
        layer: its present weights are where they stay as far as the data do not say otherwise.
        inputs: each of shape (B, C, h, w).
        targets: each of the shape that the layer returns for the input.
    """
    size = layer.weight[0].numel()
    mask = getattr(layer, "mask", None)  # of a checkerboard context
    used = torch.arange(size) if mask is None else mask[0].flatten().nonzero()[:, 0]
    gram = torch.zeros(len(used) + 1, len(used) + 1, dtype=torch.float64)
    moment = torch.zeros(len(used) + 1, layer.out_channels, dtype=torch.float64)
    for given, wanted in zip(inputs, targets, strict=True):
        patches = F.unfold(given.float().contiguous(), layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = patches[:, used].transpose(1, 2).flatten(0, 1)
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        gram += (rows.t() @ rows).double()
        moment += (rows.t() @ as_rows(wanted.float())).double()
    weights = layer.weight.flatten(1).clone()
    assert layer.bias is not None
    present = torch.cat([weights[:, used].t(), layer.bias[None]]).double()
    pull = RIDGE * gram.diagonal().mean().clamp_min(1e-12)
    solved = torch.linalg.solve(gram + pull * torch.eye(len(gram), dtype=torch.float64), moment + pull * present)
    weights[:, used] = solved[:-1].t().float()
    layer.weight.copy_(weights.view_as(layer.weight))
    layer.bias.copy_(solved[-1])


@torch.no_grad()
def before_gains(
    codec: distillkit.CodecAdapter,
    images: Sequence[Tensor],
    wanted: Sequence[Tensor],
    network: nn.Module,
    last: nn.Module,
) -> list[Tensor]:
    """Return what a network's last layer should give so that, after gain units, the network gives what is wanted."""
    after, before = (torch.cat(each) for each in recorded(codec, images, [network, last]))
    dims = (0, 2, 3)
    gains = (after * before).sum(dims, keepdim=True) / before.square().sum(dims, keepdim=True).clamp_min(1e-12)
    return [each / gains for each in wanted]


def as_rows(features: Tensor) -> Tensor:
    """Return features of shape (B, C, h, w) as vectors, shape (B * h * w, C)."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def recorded(
    codec: distillkit.CodecAdapter, images: Sequence[Tensor], modules: Sequence[nn.Module], *, inputs: bool = False
) -> list[list[Tensor]]:
    """Run a codec and return, for each of some modules, what it returned, or was given, call by call."""
    found: list[list[Tensor]] = [[] for _ in modules]
    hooks = [
        module.register_forward_pre_hook(lambda _, args, calls=calls: calls.append(args[0]))  # type: ignore[misc]
        if inputs
        else module.register_forward_hook(lambda _, __, output, calls=calls: calls.append(output))  # type: ignore[misc]
        for module, calls in zip(modules, found, strict=True)
    ]
    try:
        for batch in images:
            codec.forward(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def most_important(features: Sequence[Tensor], following: Tensor, number: int) -> Tensor:
    """Return the channels, in order, that contribute most to the layer that follows.

    Args:
        features: what the layer is given, each of shape (B, C, h, w).
        following: its weights, of shape (D, C, ...).
        number: how many are kept.
    """
    if number == following.shape[1]:
        return torch.arange(number)
    variance = torch.cat([as_rows(each.float()) for each in features]).var(0)
    return (variance * following.transpose(0, 1).flatten(1).square().sum(1)).topk(number).indices.sort().values
