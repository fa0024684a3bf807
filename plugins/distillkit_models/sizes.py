"""Sizes of students to order, beside those that have names."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

import distillkit

if TYPE_CHECKING:
    from .cheng2020_presets import Cheng2020Size
    from .lowres_presets import LowResSize

    Size = TypeVar("Size", LowResSize, Cheng2020Size)

MAX_DEPTH = 8  #: blocks of the deepest student to order
STEP = 8  #: channels between one width and the next

Count = Annotated[int, Field(gt=0)] | None


class StudentSize(distillkit.ComponentConfig):
    """The size of a student; what is left out is that of the named size.

    Attributes:
        width: channels of the transforms.
        latent: channels of the latent y.
        blocks: in analysis, and as many in synthesis.
        hyper_width: channels of the hyper-latent and of the transforms around it; even.
        entropy_width: a quarter of the channels that hyper-prior and context give to the entropy parameters.
    """

    width: Count = None
    latent: Count = None
    blocks: Annotated[int, Field(ge=0)] | None = None
    hyper_width: Annotated[int, Field(gt=0, multiple_of=2)] | None = None
    entropy_width: Count = None

    def of(self, named: Size) -> Size:
        """Return the size, from the named one."""
        return dataclasses.replace(named, **self.model_dump(exclude_none=True))


def widths_by_depth(smallest: int = 16) -> list[tuple[int, range]]:
    """Return numbers of blocks, each with the widths that go with it: 32 to 64 channels a block.

    The named sizes of `models.lowres` have 40 to 53. With one block a student may be thinner.

    Args:
        smallest: width, a multiple of 8.
    """
    shapes = [(blocks, 32 * blocks, 64 * blocks) for blocks in range(2, MAX_DEPTH + 1)]
    return [(blocks, range(low, high + 1, STEP)) for blocks, low, high in [(1, smallest, 64), *shapes]]


def to_order(
    order: distillkit.Order, shapes: list[tuple[int, range]], hyper: float, entropy: float
) -> distillkit.Offer:
    """Return the students of these shapes, whose entropy model grows with their width.

    Args:
        order: what a student has to have.
        shapes: numbers of blocks, each with its widths.
        hyper: width of the hyper-prior, as a multiple of the student's.
        entropy: of the entropy parameters, likewise.
    """
    gains: dict[str, Any] = {"gain_units": order.gain_units} if order.gain_units else {}
    latent = -(-order.channels // STEP) * STEP

    def options(width: int, blocks: int) -> dict[str, Any]:
        inner = {"hyper_width": 2 * round(width * hyper / 2), "entropy_width": round(width * entropy)}
        return gains | {"size": "lite", "student": {"width": width, "blocks": blocks, "latent": latent, **inner}}

    return distillkit.Offer([[options(width, blocks) for width in widths] for blocks, widths in shapes])
