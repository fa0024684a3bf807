"""Distil large learned image codecs into small, fast ones."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codec.load import load_codec as load_codec
    from .codec.reading import read_compressed as read_compressed
    from .codec.runtime import ImageCodec as ImageCodec
    from .data.images import read_image as read_image
    from .data.samples import Samples as Samples
    from .errors import DistillkitError as DistillkitError
    from .errors import PairError as PairError
    from .errors import did_you_mean as did_you_mean
    from .evaluation.bd import bd_rate as bd_rate
    from .evaluation.curve import RDCurve as RDCurve
    from .evaluation.curve import RDPoint as RDPoint
    from .evaluation.evaluate import evaluate as evaluate
    from .evaluation.evaluate import evaluate_model as evaluate_model
    from .evaluation.first_look import first_look as first_look
    from .evaluation.rd_compare import compare_curves as compare_curves
    from .evaluation.results import Evaluation as Evaluation
    from .evaluation.side_by_side import Comparison as Comparison
    from .evaluation.side_by_side import compare as compare
    from .experiment import Distilled as Distilled
    from .experiment import distil as distil
    from .experiment import distil_recipes as distil_recipes
    from .experiment import repeat_with_seeds as repeat_with_seeds
    from .export.export import export_model as export_model
    from .family.plan import Family as Family
    from .family.run import run_family as run_family
    from .hooks.components import ComponentConfig as ComponentConfig
    from .hooks.hookspecs import hookimpl as hookimpl
    from .hooks.loader import Plugins as Plugins
    from .hooks.loader import load_plugins as load_plugins
    from .model.adapters import CodecAdapter as CodecAdapter
    from .model.adapters import CodecOutput as CodecOutput
    from .model.adapters import CompressAIAdapter as CompressAIAdapter
    from .model.adapters import CompressedLatents as CompressedLatents
    from .model.adapters import as_codec as as_codec
    from .model.adapters import fingerprint as fingerprint
    from .model.conditioned import MIDDLE as MIDDLE
    from .model.conditioned import ConditionedAdapter as ConditionedAdapter
    from .model.file import TrainedModel as TrainedModel
    from .model.file import load_model as load_model
    from .model.gain_units import GainedCodec as GainedCodec
    from .model.initialise import Cut as Cut
    from .model.initialise import find_cuts as find_cuts
    from .model.lmbda import LmbdaRange as LmbdaRange
    from .model.sources import Source as Source
    from .model.weights import read_weights as read_weights
    from .model.weights import state_difference as state_difference
    from .recipe.recipe import Recipe as Recipe
    from .report.page import write_page as write_page
    from .taps.bank import TapShape as TapShape
    from .taps.bank import TapShapes as TapShapes
    from .taps.orders import Offer as Offer
    from .taps.orders import Order as Order
    from .taps.pair import CodecPair as CodecPair
    from .taps.pair import TapPair as TapPair
    from .taps.pair import TeachingPair as TeachingPair
    from .taps.points import Tap as Tap
    from .taps.provider import TapProvider as TapProvider
    from .taps.provider import TracedModule as TracedModule
    from .taps.provider import find_taps as find_taps
    from .taps.sampled import sampled as sampled
    from .training.display.progress import ProgressDisplay as ProgressDisplay
    from .training.distributed import batch_variance as batch_variance
    from .training.extensions.base import StepExtension as StepExtension
    from .training.extensions.base import Trained as Trained
    from .training.extensions.view import ModelView as ModelView
    from .training.losses import Calibration as Calibration
    from .training.losses import LossConfig as LossConfig
    from .training.losses import LossTerm as LossTerm
    from .training.losses import Step as Step
    from .training.objectives.objective import Objective as Objective
    from .training.objectives.objective import rate_distortion as rate_distortion
    from .training.own_loop import bind as bind
    from .training.own_loop import build_loss as build_loss
    from .training.pace.optimizers import OptimizerBuilder as OptimizerBuilder
    from .training.pace.rates import RateSchedule as RateSchedule
    from .training.phases import Phase as Phase
    from .training.phases import PhaseSchedule as PhaseSchedule
    from .training.phases import Ramp as Ramp
    from .training.preemption import TrainingStopped as TrainingStopped
    from .training.run_info import RunInfo as RunInfo
    from .training.trackers.mlflow import MLflowObserver as MLflowObserver
    from .training.trackers.wandb import WandbObserver as WandbObserver
    from .training.train import train as train

# Loaded at first use: torch takes seconds to import, and `distillkit --help` does not need it.
_HOME = {
    "Calibration": "training.losses",
    "CodecAdapter": "model.adapters",
    "CodecOutput": "model.adapters",
    "CodecPair": "taps.pair",
    "Comparison": "evaluation.side_by_side",
    "ComponentConfig": "hooks.components",
    "CompressAIAdapter": "model.adapters",
    "CompressedLatents": "model.adapters",
    "ConditionedAdapter": "model.conditioned",
    "Cut": "model.initialise",
    "Distilled": "experiment",
    "DistillkitError": "errors",
    "Evaluation": "evaluation.results",
    "Family": "family.plan",
    "GainedCodec": "model.gain_units",
    "ImageCodec": "codec.runtime",
    "LmbdaRange": "model.lmbda",
    "LossConfig": "training.losses",
    "LossTerm": "training.losses",
    "MIDDLE": "model.conditioned",
    "MLflowObserver": "training.trackers.mlflow",
    "ModelView": "training.extensions.view",
    "Objective": "training.objectives.objective",
    "Offer": "taps.orders",
    "OptimizerBuilder": "training.pace.optimizers",
    "Order": "taps.orders",
    "PairError": "errors",
    "Phase": "training.phases",
    "PhaseSchedule": "training.phases",
    "Plugins": "hooks.loader",
    "ProgressDisplay": "training.display.progress",
    "RDCurve": "evaluation.curve",
    "RDPoint": "evaluation.curve",
    "Ramp": "training.phases",
    "RateSchedule": "training.pace.rates",
    "Recipe": "recipe.recipe",
    "RunInfo": "training.run_info",
    "Samples": "data.samples",
    "Step": "training.losses",
    "StepExtension": "training.extensions.base",
    "Tap": "taps.points",
    "TapPair": "taps.pair",
    "TapProvider": "taps.provider",
    "TapShape": "taps.bank",
    "TapShapes": "taps.bank",
    "TeachingPair": "taps.pair",
    "TracedModule": "taps.provider",
    "Trained": "training.extensions.base",
    "TrainedModel": "model.file",
    "TrainingStopped": "training.preemption",
    "WandbObserver": "training.trackers.wandb",
    "as_codec": "model.adapters",
    "batch_variance": "training.distributed",
    "bd_rate": "evaluation.bd",
    "bind": "training.own_loop",
    "build_loss": "training.own_loop",
    "compare": "evaluation.side_by_side",
    "compare_curves": "evaluation.rd_compare",
    "did_you_mean": "errors",
    "distil": "experiment",
    "distil_recipes": "experiment",
    "evaluate": "evaluation.evaluate",
    "evaluate_model": "evaluation.evaluate",
    "export_model": "export.export",
    "find_cuts": "model.initialise",
    "find_taps": "taps.provider",
    "first_look": "evaluation.first_look",
    "fingerprint": "model.adapters",
    "hookimpl": "hooks.hookspecs",
    "load_codec": "codec.load",
    "load_model": "model.file",
    "load_plugins": "hooks.loader",
    "rate_distortion": "training.objectives.objective",
    "read_compressed": "codec.reading",
    "Source": "model.sources",
    "read_image": "data.images",
    "read_weights": "model.weights",
    "repeat_with_seeds": "experiment",
    "run_family": "family.run",
    "sampled": "taps.sampled",
    "state_difference": "model.weights",
    "train": "training.train",
    "write_page": "report.page",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("distillkit-lic")
    if name not in _HOME:
        raise AttributeError(f"module 'distillkit' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
