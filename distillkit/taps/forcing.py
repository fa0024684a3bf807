"""Teacher forcing: what follows a student's analysis is given the teacher's latent in place of the student's own.

Source: Li et al. (2020), arXiv 1911.13053, for blocks of a student that take the teacher's features; Williams and
Zipser (1989) for the name. Departure: the one block boundary is the latent; ours.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import PairError
from .bank import TapBank


@contextmanager
def latent_given(bank: TapBank, latent: Tensor | None) -> Generator[None]:
    """Have a codec's analysis return `latent` for as long as the context lasts; its taps hold what it made by itself.

    Args:
        bank: the codec's taps.
        latent: of the batch, shape (B, M, h, w); a codec that is run image by image takes one after the other. None
            leaves the codec its own.

    Raises:
        PairError: the codec's latent has another shape, or is not what one module returns.
    """
    if latent is None:
        yield
        return
    tap = bank.taps.get("latent")
    modules = dict(bank.codec.module.named_modules())
    if tap is None or tap.read or tap.takes or len(tap.paths) != 1 or tap.paths[0] not in modules:
        raise PairError(
            f"teacher forcing: expected a tap 'latent' of {bank.name} on the module that returns y alone. Name that "
            "module in student_taps, or train without teacher forcing."
        )
    place = 0

    def give(_: nn.Module, __: Any, own: Tensor) -> Tensor:
        nonlocal place
        if own.shape[1:] != latent.shape[1:]:
            expected, got = (tuple(each.shape[1:]) for each in (latent, own))
            raise PairError(
                f"teacher forcing: expected latents of one shape, got {expected} from the teacher and {got} from "
                f"{bank.name}. Choose codecs whose latents have the same channels, or train without teacher forcing."
            )
        first, place = place, place + len(own)
        return latent[first:place].to(own.dtype)

    handle = modules[tap.paths[0]].register_forward_hook(give)  # after the tap's own hook
    try:
        yield
    finally:
        handle.remove()
