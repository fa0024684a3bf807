"""The codec pairs that ship with distillkit, and the provider of taps that suits them."""

from __future__ import annotations

from collections.abc import Callable

import distillkit

from .cheng2020 import Cheng2020Pair
from .compressai_zoo import CompressAIPair
from .light import LightPair
from .lowres import LowResPair
from .swin import SwinPair
from .taps import ByResolution


@distillkit.hookimpl
def register_pairs(register: Callable[[str, type[distillkit.CodecPair]], None]) -> None:
    """Register the pairs."""
    register("cheng2020", Cheng2020Pair)
    register("compressai", CompressAIPair)
    register("light", LightPair)
    register("lowres", LowResPair)
    register("swin", SwinPair)


@distillkit.hookimpl
def register_feature_taps(register: Callable[[str, type[distillkit.TapProvider]], None]) -> None:
    """Register the provider."""
    register("by_resolution", ByResolution)
