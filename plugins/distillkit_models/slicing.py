"""Codecs cut out of larger ones: layers that are set by least squares, and the entropy model made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import distillkit

RIDGE = 1e-3  #: of the pull to the weights that a layer has, as a share of the mean power of its inputs

_ENTROPY_SIZE = ("latent", "hyper_width", "entropy_width", "context_kernel")  #: as `checkerboard_codec` takes them


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


@torch.no_grad()
def slice_entropy_model(
    student: distillkit.CodecAdapter, teacher: distillkit.CodecAdapter, images: Sequence[Tensor], latents: Tensor
) -> None:
    """Set the student's hyper-prior and context from its teacher's, in place.

    Each layer keeps the channels that contribute most to the layer after it, and is fitted, by least squares, to what
    the teacher's gives for them. The student's analysis has to give the teacher's latents already.

    Source: Luo et al. (2017), ThiNet, arXiv 1707.06342.

    Args:
        student: at the quality at which it is fitted.
        teacher: at its quality.
        images: batches of crops, each of shape (B, 3, H, W), range [0, 1].
        latents: the teacher's channels of y that the student has, in its order, shape (M,).
    """
    own, other = student.module.latent_codec, teacher.module.latent_codec
    layers, sources = _layers(own), _layers(other)
    outputs, inputs = recorded(teacher, images, sources), recorded(teacher, images, sources, inputs=True)
    num_hyper = len(_convolutions(own["hyper"].h_a))
    context = num_hyper + len(_convolutions(own["hyper"].h_s))  # its place; entropy parameters take its output first
    half = sources[context + 1].in_channels // 2

    kept: list[Tensor] = []  # of each layer's outputs, as the next layer takes them: after a pixel shuffle
    shuffled: list[int] = []  # outputs of a layer that a pixel shuffle makes one channel of
    for place, (layer, source) in enumerate(zip(layers, sources, strict=True)):
        if place + 1 == len(layers):
            kept.append(torch.cat([latents, latents + source.out_channels // 2]))
            shuffled.append(1)
            break
        following = context + 1 if place == context - 1 else place + 1
        weights, features = sources[following].weight, inputs[following]
        if following == context + 1:
            part = slice(0, half) if place == context else slice(half, None)
            weights, features = weights[:, part], [each[:, part] for each in features]
        shuffled.append(source.out_channels // weights.shape[1])
        kept.append(most_important(features, weights, layer.out_channels // shuffled[-1]))

    hyper_latents = kept[num_hyper - 1]
    keep_hyper_latents(student.module, teacher.module, hyper_latents)
    for place, (layer, source) in enumerate(zip(layers, sources, strict=True)):
        taken = latents if place in (0, context) else kept[place - 1]
        if place == context + 1:
            taken = torch.cat([kept[context], half + kept[context - 1]])
        rows = (kept[place][:, None] * shuffled[place] + torch.arange(shuffled[place])).flatten()
        edge = (source.kernel_size[0] - layer.kernel_size[0]) // 2  # the middle of a larger kernel
        inside = slice(edge, source.kernel_size[0] - edge)
        layer.weight.copy_(source.weight[rows][:, taken, inside, inside])
        layer.bias.copy_(source.bias[rows])
        wanted = [each[:, rows] for each in outputs[place]]
        if place == num_hyper - 1:
            wanted = [z[:, hyper_latents] for z in recorded(teacher, images, [other["hyper"].h_a])[0]]
            wanted = before_gains(student, images, wanted, own["hyper"].h_a, layer)
        fit(layer, recorded(student, images, [layer], inputs=True)[0], wanted)


@torch.no_grad()
def start_entropy_model(
    student: distillkit.CodecAdapter, teacher: distillkit.CodecAdapter, images: Iterable[Tensor]
) -> bool:
    """Set a student's entropy model from its teacher's, in place; the transforms may be of different architectures.

    It codes the teacher's latents then, not those that the student's analysis gives so far. Arguments as for
    `slice_entropy_model`.

    Returns:
        False, and nothing is changed, where the teacher has another kind of entropy model, or the student a larger one.
    """
    sizes = [getattr(codec.module, "size", None) for codec in (student, teacher)]
    own, other = ([getattr(size, key, 0) for key in _ENTROPY_SIZE] for size in sizes)
    if 0 in own or own == other or any(few > many for few, many in zip(own, other, strict=True)):
        return False
    images = list(images)
    latents = most_bits(teacher, images, own[0])
    keep_gains(student.module, teacher.module, ("y", "y_inverse"), latents)
    given = cycle(y[:, latents] for y in recorded(teacher, images, [teacher.module.g_a])[0])  # type: ignore[list-item]
    handle = student.module.g_a.register_forward_hook(lambda *_: next(given))  # type: ignore[operator, union-attr]
    try:
        slice_entropy_model(student, teacher, images, latents)
    finally:
        handle.remove()
    return True


def most_bits(codec: distillkit.CodecAdapter, images: Sequence[Tensor], number: int) -> Tensor:
    """Return the channels of y on which a codec spends most bits, in rank order as `feds.channel_entropy` has them.

    All of them, in their own order, where it has no more than that.
    """
    bits = -torch.stack([codec.forward(batch).likelihoods["y"].log2().sum(dim=(0, 2, 3)) for batch in images]).sum(0)
    return torch.arange(len(bits)) if number >= len(bits) else bits.argsort(descending=True, stable=True)[:number]


def keep_hyper_latents(student: Any, teacher: Any, channels: Tensor) -> None:
    """Give the student's prior of z the teacher's parameters of some of its channels."""
    names = [each.latent_codec["hyper"].entropy_bottleneck.named_parameters() for each in (student, teacher)]
    for (_, own), (_, other) in zip(*names, strict=True):
        own.copy_(other[channels])
    keep_gains(student, teacher, ("z", "z_inverse"), channels)


def keep_gains(student: Any, teacher: Any, units: Sequence[str], channels: Tensor) -> None:
    """Give the student's gain units the teacher's gains of some channels, where both have units of as many levels."""
    gains = [dict(each.gain.named_parameters()) if hasattr(each, "gain") else {} for each in (student, teacher)]
    for unit in units:
        own, other = (each.get(unit) for each in gains)
        if own is not None and other is not None and len(own) == len(other):
            own.copy_(other[:, channels])


def _layers(latent_codec: Any) -> list[Any]:
    """Return the convolutions: of h_a, h_s, the context and the entropy parameters, in this order."""
    hyper, coded = latent_codec["hyper"], latent_codec["y"]
    h_a, h_s, parameters = map(_convolutions, (hyper.h_a, hyper.h_s, coded.entropy_parameters))
    return [*h_a, *h_s, coded.context_prediction, *parameters]


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
