"""Distillation in a training loop of your own: bind two codecs, build losses, and call them."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..hooks.loader import Plugins, load_plugins
from ..model.adapters import CodecAdapter, as_codec
from ..taps.pair import TeachingPair
from ..taps.provider import find_taps
from .losses import LossTerm
from .setup.teaching import build_term


def bind(
    teacher: nn.Module | CodecAdapter,
    student: nn.Module | CodecAdapter,
    image_size: tuple[int, int],
    *,
    taps: str = "models.by_resolution",
    plugins: Plugins | None = None,
) -> TeachingPair:
    """Freeze the teacher, find the taps of both codecs, and check that the two fit.

    Args:
        teacher: a trained codec, as a module with CompressAI's model API or an adapter.
        student: the codec that you train.
        image_size: height and width in pixels of the crops that you will train on.
        taps: the provider that finds the taps.
        plugins: where it is registered; by default the installed plugins.

    Raises:
        PairError: the two do not fit, or the image size does not suit one of them.
        TapError: a tap cannot be read.
    """
    provider_class, config = (plugins or load_plugins()).configure("taps", taps, {}, "bind: taps")
    provider = provider_class(config)
    sides = as_codec(teacher), as_codec(student)
    pair = TeachingPair(*sides, (find_taps(sides[0], provider, image_size), find_taps(sides[1], provider, image_size)))
    pair.probe(image_size)
    return pair


def build_loss(name: str, pair: TeachingPair, *, plugins: Plugins | None = None, **options: Any) -> LossTerm:
    """Return a loss term for a pair: a module; its parameters (adapters) belong to your optimiser, too.

    Args:
        name: its full name, such as `feds.alignment`.
        pair: from `bind`.
        plugins: where it is registered; by default the installed plugins.
        options: as in a recipe.

    Raises:
        RecipeError: there is no such loss, or an option is not valid.
        TapError: the pair lacks a tap that the loss needs.
    """
    return build_term(f"build_loss {name}", name, options, pair.report, plugins or load_plugins())
