"""A student that starts from its teacher's weights: what fits is copied, what is wider is sliced along channels.

Widths are cut by one rule: all layers in which the teacher has T channels and the student S keep the same S of them.
The rule is coarse, but it keeps residual connections and consecutive layers consistent in any network, and needs to
know nothing about the network. Channels are ranked by the norms of the weights that touch them; those of the latent by
the bits that the teacher spends on them.

Source: weight inheritance as in EVC (Wang et al., 2023, arXiv 2302.05071) and pruning by filter norms (Li et al., 2017,
arXiv 1608.08710). Departure: one selection per width, by norms summed over all layers; ours.
"""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

MAX_NAMED = 8  # tensors that a report names; of more it says how many lie where
Width = tuple[int, int]  # the teacher's and the student's number of channels


@final
@dataclass(frozen=True)
class Inheritance:
    """What a student took over from its teacher.

    Attributes:
        copied: names of the student's parameters that were copied whole.
        sliced: names of those that were cut out of a larger one.
        kept: names of those that keep their random values: no counterpart, or a smaller one.
        share: part of the student's parameter values that was taken over, in [0, 1].
    """

    copied: tuple[str, ...]
    sliced: tuple[str, ...]
    kept: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        text = (
            f"initial weights: {self.share:.0%} of the parameters are taken over "
            f"({len(self.copied)} tensors copied, {len(self.sliced)} sliced)"
        )
        if len(self.kept) > MAX_NAMED:
            parts = Counter(name.partition(".")[0] for name in self.kept)
            return f"{text}; random: {', '.join(f'{number} in {part}' for part, number in parts.items())}"
        return f"{text}; random: {', '.join(self.kept)}" if self.kept else text


@torch.no_grad()
def inherit_weights(student: nn.Module, teacher: nn.Module, latent_bits: Tensor) -> Inheritance:
    """Set a student's parameters from its teacher's, in place.

    Args:
        student: a freshly initialised network.
        teacher: a trained one; modules correspond by name, and in sequences by type and order.
        latent_bits: bits that the teacher spends on each channel of its latent, shape (M,).
    """
    cuts = {cut.name: cut for cut in find_cuts(student, teacher, latent_bits)}
    copied, sliced, kept, num_taken = [], [], [], 0
    for name, own in student.named_parameters():
        if name not in cuts:
            kept.append(name)
            continue
        (sliced if cuts[name].index else copied).append(name)
        cuts[name].take()
        num_taken += own.numel()
    share = num_taken / max(sum(parameter.numel() for parameter in student.parameters()), 1)
    return Inheritance(tuple(copied), tuple(sliced), tuple(kept), share)


@final
@dataclass(frozen=True)
class Cut:
    """A parameter of a student, and the larger one of its teacher from which it is cut.

    Attributes:
        name: of the student's.
        small: the student's.
        large: the teacher's.
        index: axis -> the places that are kept along it; axes that are not named are kept whole.
    """

    name: str
    small: nn.Parameter
    large: nn.Parameter
    index: Mapping[int, Tensor]

    @torch.no_grad()
    def take(self) -> None:
        """Set the student's parameter from the teacher's."""
        values: Tensor = self.large
        for axis, index in self.index.items():
            values = values.index_select(axis, index.to(values.device))
        self.small.copy_(values)

    def kept(self) -> Tensor:
        """Return which elements of the teacher's parameter are kept, as booleans of its shape."""
        kept = torch.ones_like(self.large, dtype=torch.bool)
        for axis, index in self.index.items():
            along = torch.zeros(self.large.shape[axis], dtype=torch.bool, device=kept.device)
            along[index.to(kept.device)] = True
            kept &= along.view([-1 if dim == axis else 1 for dim in range(kept.ndim)])
        return kept


def find_cuts(student: nn.Module, teacher: nn.Module, latent_bits: Tensor) -> list[Cut]:
    """Return which of a teacher's parameters, or what part of each, make a student's; see `inherit_weights`."""
    found = [each for each in _counterparts(student, teacher, "") if _fits(each[1], each[2])]
    interleaved = {id(weight) for weight in _before_pixel_shuffle(student)}
    keep = _selections([(own, other) for _, own, other in found], latent_bits, interleaved)
    cuts: list[Cut] = []
    for name, own, other in found:
        index: dict[int, Tensor] = {}
        for axis, width in enumerate(zip(other.shape, own.shape, strict=True)):
            if width[0] != width[1]:
                middle = torch.arange(width[1]) + (width[0] - width[1]) // 2  # of a larger kernel
                inside = axis == 0 and id(own) in interleaved
                index[axis] = middle if axis >= 2 else _index(keep, width, inside)
        cuts.append(Cut(name, own, other, index))
    return cuts


def _counterparts(
    student: nn.Module, teacher: nn.Module, prefix: str
) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
    """Yield name, student's parameter and teacher's parameter for all that correspond."""
    others = dict(teacher.named_parameters(recurse=False))
    for name, parameter in student.named_parameters(recurse=False):
        if name in others and others[name].ndim == parameter.ndim:
            yield prefix + name, parameter, others[name]
    own, other = dict(student.named_children()), dict(teacher.named_children())
    if all(name.isdigit() for name in (*own, *other)):  # a sequence: layers may have been left out
        names = [[type(child).__name__ for child in children.values()] for children in (own, other)]
        blocks = difflib.SequenceMatcher(None, *names, autojunk=False).get_matching_blocks()
        ours, theirs = list(own), list(other)
        pairs = [(ours[b.a + i], theirs[b.b + i]) for b in blocks for i in range(b.size)]
    else:
        pairs = [(name, name) for name in own if name in other]
    for name, counterpart in pairs:
        yield from _counterparts(own[name], other[counterpart], f"{prefix}{name}.")


def _fits(own: Tensor, other: Tensor) -> bool:
    widths = zip(own.shape, other.shape, strict=True)
    return all(s == t or (s < t and (axis < 2 or (t - s) % 2 == 0)) for axis, (s, t) in enumerate(widths))


def _before_pixel_shuffle(network: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters whose output channels a pixel shuffle spreads over space, neighbours together."""
    for module in network.modules():
        children = list(module.children())
        for layer, following in itertools.pairwise(children):
            if isinstance(following, nn.PixelShuffle):
                yield from layer.parameters()


def _selections(
    pairs: Sequence[tuple[Tensor, Tensor]], latent_bits: Tensor, interleaved: set[int]
) -> Mapping[Width, Tensor]:
    """Return, for every width that is cut, the teacher's channels that are kept."""
    scores: dict[Width, Tensor] = {}
    for own, other in pairs:
        for axis, (s, t) in enumerate(zip(own.shape[:2], other.shape[:2], strict=True)):
            if s < t and not (axis == 0 and id(own) in interleaved):
                rest = [dim for dim in range(other.ndim) if dim != axis]
                power = other.detach().float().square().sum(rest) if rest else other.detach().float().square()
                scores[t, s] = scores.get((t, s), torch.zeros(t)) + power.cpu() / power.sum().clamp_min(1e-12).cpu()
    keep = {width: score.topk(width[1]).indices.sort().values for width, score in scores.items()}
    for width in keep:
        if width[0] == len(latent_bits):
            # In rank order, as `feds.channel_entropy` has them
            keep[width] = latent_bits.cpu().argsort(descending=True, stable=True)[: width[1]]
    return keep


def _index(keep: Mapping[Width, Tensor], width: Width, interleaved: bool) -> Tensor:
    """Return the channels kept of a width; a multiple of another width is that one, several times over."""
    for times in (2, 3, 4, 9, 16):
        base = (width[0] // times, width[1] // times)
        if base in keep and (base[0] * times, base[1] * times) == width:
            kept, copies = keep[base], torch.arange(times)
            if interleaved:
                return (kept[:, None] * times + copies).flatten()
            return (copies[:, None] * base[0] + kept).flatten()
    if width in keep:
        return keep[width]
    return torch.arange(width[1])  # another width after a pixel shuffle
