"""Distil large learned image codecs into small, fast ones."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters import CodecAdapter as CodecAdapter
    from .adapters import CodecOutput as CodecOutput
    from .adapters import CompressAIAdapter as CompressAIAdapter
    from .adapters import CompressedLatents as CompressedLatents
    from .codec.runtime import ImageCodec as ImageCodec
    from .components import ComponentConfig as ComponentConfig
    from .conditioned import MIDDLE as MIDDLE
    from .conditioned import ConditionedAdapter as ConditionedAdapter
    from .distributed import batch_variance as batch_variance
    from .errors import DistillkitError as DistillkitError
    from .errors import PairError as PairError
    from .errors import did_you_mean as did_you_mean
    from .evaluation.compare import Comparison as Comparison
    from .evaluation.compare import compare as compare
    from .evaluation.evaluate import evaluate as evaluate
    from .evaluation.evaluate import evaluate_model as evaluate_model
    from .evaluation.results import Evaluation as Evaluation
    from .experiment import distil as distil
    from .gain_units import GainedCodec as GainedCodec
    from .hookspecs import hookimpl as hookimpl
    from .images import read_image as read_image
    from .losses import Calibration as Calibration
    from .losses import LossConfig as LossConfig
    from .losses import LossTerm as LossTerm
    from .losses import Step as Step
    from .losses import TapPair as TapPair
    from .model_file import TrainedModel as TrainedModel
    from .model_file import load_model as load_model
    from .observers import ProgressDisplay as ProgressDisplay
    from .observers import RunInfo as RunInfo
    from .pair import CodecPair as CodecPair
    from .pair import TeachingPair as TeachingPair
    from .pair import find_taps as find_taps
    from .phases import Phase as Phase
    from .phases import PhaseSchedule as PhaseSchedule
    from .phases import Ramp as Ramp
    from .plugins import Plugins as Plugins
    from .plugins import load_plugins as load_plugins
    from .preemption import TrainingStopped as TrainingStopped
    from .recipe import Recipe as Recipe
    from .sampled_taps import sampled as sampled
    from .tap_points import Tap as Tap
    from .taps import TapProvider as TapProvider
    from .taps import TapShape as TapShape
    from .taps import TapShapes as TapShapes
    from .taps import TracedModule as TracedModule
    from .trainer import train as train

# Loaded at first use: torch takes seconds to import, and `distillkit --help` does not need it.
_HOME = {
    "Calibration": "losses",
    "CodecAdapter": "adapters",
    "CodecOutput": "adapters",
    "CodecPair": "pair",
    "Comparison": "evaluation.compare",
    "ComponentConfig": "components",
    "CompressAIAdapter": "adapters",
    "CompressedLatents": "adapters",
    "ConditionedAdapter": "conditioned",
    "DistillkitError": "errors",
    "Evaluation": "evaluation.results",
    "GainedCodec": "gain_units",
    "ImageCodec": "codec.runtime",
    "LossConfig": "losses",
    "LossTerm": "losses",
    "MIDDLE": "conditioned",
    "PairError": "errors",
    "Phase": "phases",
    "PhaseSchedule": "phases",
    "Plugins": "plugins",
    "ProgressDisplay": "observers",
    "Ramp": "phases",
    "Recipe": "recipe",
    "RunInfo": "observers",
    "Step": "losses",
    "Tap": "tap_points",
    "TapPair": "losses",
    "TapProvider": "taps",
    "TapShape": "taps",
    "TapShapes": "taps",
    "TeachingPair": "pair",
    "TracedModule": "taps",
    "TrainedModel": "model_file",
    "TrainingStopped": "preemption",
    "batch_variance": "distributed",
    "compare": "evaluation.compare",
    "did_you_mean": "errors",
    "distil": "experiment",
    "evaluate": "evaluation.evaluate",
    "evaluate_model": "evaluation.evaluate",
    "find_taps": "pair",
    "hookimpl": "hookspecs",
    "load_model": "model_file",
    "load_plugins": "plugins",
    "read_image": "images",
    "sampled": "sampled_taps",
    "train": "trainer",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'distillkit' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
