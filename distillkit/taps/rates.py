"""Codecs of many rates with their taps: each image of a batch at its own quality."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..model.adapters import CodecOutput
from ..model.conditioned import ConditionedAdapter, FixedQuality, join_outputs
from .bank import TapBank


def run_bank(
    bank: TapBank, images: Tensor, roles: Collection[str], quality: Tensor | None, stop_early: bool = False
) -> tuple[CodecOutput | None, dict[str, Tensor]]:
    """Run a codec with its taps; image by image where one batch cannot have the qualities of all."""
    codec = bank.codec
    if quality is None or not isinstance(codec, ConditionedAdapter):
        return bank.run(images, roles, stop_early)
    parts = [(images, quality)]
    if not codec.mixes_qualities:
        parts = list(zip(images.split(1), quality.split(1), strict=True))
    done: list[tuple[CodecOutput | None, dict[str, Tensor]]] = []
    try:
        for part, each in parts:
            bank.codec = FixedQuality(codec, each)
            done.append(bank.run(part, roles, stop_early))
    finally:
        bank.codec = codec
    features = {role: torch.cat([taps[role] for _, taps in done]) for role in done[0][1]}
    return join_outputs([output for output, _ in done if output is not None]), features
