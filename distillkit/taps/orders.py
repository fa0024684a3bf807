"""What `distillkit fit` asks of a pair, and what the pair offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final


@final
@dataclass(frozen=True)
class Order:
    """What a student to order has to have.

    Attributes:
        teacher: the trained codec: its model file, or `zoo:NAME`.
        channels: of the teacher's latent that carry bits; a student's latent should have as many.
        gain_units: qualities at which gains are learnt, for a student of many rates; None for one rate.
        is_encoder: whether the limit is on encoding, rather than on decoding or both.
    """

    teacher: str
    channels: int
    gain_units: int | None
    is_encoder: bool


@final
@dataclass(frozen=True)
class Offer:
    """The students of a pair among which there is a choice.

    Attributes:
        ladders: one for each depth, from shallow to deep: options of the pair, from the smallest student to the
            largest. The first of each is no smaller than the first of the one before.
        changes: to the shipped recipe that trains such a student, by key, as in `Recipe.load`.
    """

    ladders: Sequence[Sequence[Mapping[str, Any]]]
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
