"""A low-resolution student that starts where its teacher is: sliced, and fitted layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import distillkit

from .lowres_net import PATCH, LowRes, LowResBlock
from .slicing import as_rows, before_gains, fit, keep_gains, most_bits, most_important, recorded, slice_entropy_model


@torch.no_grad()
def slice_codec(student: distillkit.CodecAdapter, teacher: distillkit.CodecAdapter, images: Iterable[Tensor]) -> bool:
    """Set all of a student's weights from its teacher's, in place; see `slice_transforms`, `slice_entropy_model`.

    Returns:
        False, and nothing is changed, where sizes are equal, or the student has a larger part, attention or no blocks.
    """
    own, other = asdict(student.module.size), asdict(teacher.module.size)  # type: ignore[arg-type]
    if own == other or any(own[key] > other[key] for key in own) or not own["blocks"] or own["swin_depth"]:
        return False
    images = list(images)
    latents = most_bits(teacher, images, own["latent"])
    keep_gains(student.module, teacher.module, ("y", "y_inverse"), latents)
    slice_transforms(student, teacher, images, latents)
    slice_entropy_model(student, teacher, images, latents)
    return True


@torch.no_grad()
def slice_transforms(
    student: distillkit.CodecAdapter, teacher: distillkit.CodecAdapter, images: Sequence[Tensor], latents: Tensor
) -> None:
    """Set the student's transforms from its teacher's, in place.

    Blocks add to features at 1/8 resolution, and no normalisation stands between them. So these features can be turned
    freely, and the student keeps those directions in which the teacher's vary most (principal components). Inside of a
    block it keeps the channels that contribute most. One block stands for several of the teacher's: its last layers
    are fitted, by least squares, to what these have given at their end, and the last layer of each transform to the
    teacher's latent and to the pictures.

    Source: Ashkboos et al. (2024), SliceGPT, arXiv 2401.15024, for turning and cutting features; Luo et al. (2017),
    ThiNet, arXiv 1707.06342, for fitting what follows a cut by least squares.
    Departure: both are for one network's own layers; ours is a block that stands for several.

    Args:
        student: at the quality at which it is fitted.
        teacher: at its quality.
        images: batches of crops, each of shape (B, 3, H, W), range [0, 1].
        latents: the teacher's channels of y that the student has, in its order, shape (M,).
    """
    own, other = student.module, teacher.module
    assert isinstance(own, LowRes)
    assert isinstance(other, LowRes)
    wanted = [y[:, latents] for y in recorded(teacher, images, [other.g_a])[0]]
    crops = torch.cat(list(images))
    theirs = _Stream.of(other.g_a, crops)
    turn = Turn.of(theirs.inside, own.size.width)
    _fold(own.g_a[0][1], turn.out_of(other.g_a[0][1]))  # type: ignore[index]
    features = own.g_a[0](crops.contiguous(memory_format=torch.channels_last))
    features = _blocks(own.g_a, theirs, turn, features)
    last = own.g_a[-1]
    weight, bias = turn.into(next(child for child in other.g_a if isinstance(child, nn.Conv2d)))
    _fold(last, (weight[latents], bias[latents]))
    fit(last, [features], [torch.cat(before_gains(student, images, wanted, own.g_a, last))])

    early = own.g_s[0][0]  # type: ignore[index]
    given = torch.cat(recorded(student, images, [early], inputs=True)[0])
    theirs = _Stream.of(other.g_s, torch.cat(recorded(teacher, images, [other.g_s[0]], inputs=True)[0]))
    turn = Turn.of(theirs.inside, own.size.width)
    fit(early, [given], [F.pixel_unshuffle(turn.turned(theirs.inside[0]).contiguous(), 2)])
    features = F.pixel_shuffle(early(given), 2).contiguous(memory_format=torch.channels_last)
    features = _blocks(own.g_s, theirs, turn, features)
    late = own.g_s[-1][0]  # type: ignore[index]
    _fold(late, turn.into(other.g_s[-1][0]))  # type: ignore[index]
    fit(late, [features], [F.pixel_unshuffle(crops, PATCH)])


@final
@dataclass(frozen=True)
class Turn:
    """Directions of features that are kept.

    Attributes:
        basis: orthonormal, shape (C, K).
        mean: of the features, shape (C,).
    """

    basis: Tensor
    mean: Tensor

    @classmethod
    def of(cls, features: Sequence[Tensor], number: int) -> Turn:
        """Return those in which features, each of shape (B, C, h, w), vary most."""
        count, total, gram = 0, torch.zeros(()), torch.zeros(())
        for each in features:
            rows = as_rows(each).double()
            count, total, gram = count + len(rows), total + rows.sum(0), gram + rows.t() @ rows
        mean = total / count
        basis = torch.linalg.eigh(gram / count - mean.outer(mean)).eigenvectors[:, -number:].flip(1)
        return cls(basis.float(), mean.float())

    def turned(self, features: Tensor) -> Tensor:
        """Return what is kept of features of shape (B, C, h, w): (B, K, h, w)."""
        return torch.einsum("bchw,ck->bkhw", features - self.mean[:, None, None], self.basis)

    def out_of(self, layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a 1x1 layer that returns what is kept of this one's output."""
        assert layer.bias is not None
        return torch.einsum("ciyx,ck->kiyx", layer.weight, self.basis), (layer.bias - self.mean) @ self.basis

    def into(self, layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a layer that takes what is kept of this one's input."""
        assert layer.bias is not None
        bias = layer.bias + torch.einsum("ocyx,c->o", layer.weight, self.mean)
        return torch.einsum("ocyx,ck->okyx", layer.weight, self.basis), bias


@final
@dataclass(frozen=True)
class _Stream:
    """What a transform of the teacher's computes.

    Attributes:
        blocks: its blocks.
        inside: features before the first block, and after each.
        middles: features in the middle of each block.
    """

    blocks: list[LowResBlock]
    inside: list[Tensor]
    middles: list[Tensor]

    @classmethod
    def of(cls, transform: nn.Sequential, features: Tensor) -> _Stream:
        blocks, inside, middles = [], [], []
        features = features.contiguous(memory_format=torch.channels_last)
        for child in transform:
            if isinstance(child, LowResBlock):
                inside += [] if blocks else [features]
                blocks.append(child)
                middles.append(features + child.out_of(spread(child, features)))
            features = child(features)
            if isinstance(child, LowResBlock):
                inside.append(features)
        return cls(blocks, inside, middles)


def spread(block: LowResBlock, features: Tensor) -> Tensor:
    """Return what a block's first half computes before its last layer."""
    return block.depthwise(F.leaky_relu(block.into(features), 0.1))


def gated(block: LowResBlock, features: Tensor) -> Tensor:
    """Return what a block's second half computes before its last layer."""
    gate, value = block.gate(features).chunk(2, dim=1)
    return F.silu(gate) * value


def _blocks(transform: nn.Sequential, theirs: _Stream, turn: Turn, features: Tensor) -> Tensor:
    """Set the blocks of a student's transform; return what they make of the features before the first."""
    blocks = [child for child in transform if isinstance(child, LowResBlock)]
    share = len(theirs.blocks) / len(blocks) if blocks else 0.0
    for place, block in enumerate(blocks):
        first, last = int(place * share), max(int((place + 1) * share) - 1, int(place * share))
        source = theirs.blocks[first]
        hidden = spread(source, theirs.inside[first])
        kept = most_important([hidden], source.out_of.weight, block.into.out_channels)
        weight, bias = turn.into(source.into)
        _fold(block.into, (weight[kept], bias[kept]))
        _fold(block.depthwise, (source.depthwise.weight[kept], _bias(source.depthwise)[kept]))
        weight, _ = turn.out_of(source.out_of)
        _fold(block.out_of, (weight[:, kept], _bias(source.out_of) @ turn.basis))
        hidden = spread(block, features)
        fit(block.out_of, [hidden], [turn.turned(theirs.middles[first]) - features])
        features = features + block.out_of(hidden)

        hidden = gated(source, theirs.middles[first])
        kept = most_important([hidden], source.merge.weight, block.merge.in_channels)
        both = torch.cat([kept, kept + source.merge.in_channels])
        weight, bias = turn.into(source.gate)
        _fold(block.gate, (weight[both], bias[both]))
        weight, _ = turn.out_of(source.merge)
        _fold(block.merge, (weight[:, kept], _bias(source.merge) @ turn.basis))
        hidden = gated(block, features)
        fit(block.merge, [hidden], [turn.turned(theirs.inside[last + 1]) - features])
        features = features + block.merge(hidden)
    return features


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _fold(layer: Any, values: tuple[Tensor, Tensor]) -> None:
    layer.weight.copy_(values[0].view_as(layer.weight))
    layer.bias.copy_(values[1])
