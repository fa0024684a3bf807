"""Tries every export on real bytes, both ways, before it is written."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codec.runtime import ImageCodec
from ..data.samples import RGB, Samples
from ..errors import PairError
from ..model.adapters import CompressAIAdapter
from ..model.file import TrainedModel
from .driver import ExportedCodec
from .networks import Network, first_line
from .runtimes import load_network

_ADVICE = "Export it with `--to model`."
_MOST_ERROR = 1e-12  #: relative, of networks in float64; a number kept in float32 makes one of some 1e-9
_MOST_LEVELS = 2  #: of 255, that two decoders may differ by: synthesis in float32 rounds


def check_folder(model: TrainedModel, folder: Path) -> None:
    """Check that an exported folder and the model read each other's files, for pictures of three sizes.

    Raises:
        PairError: they do not.
    """
    name = type(model.codec.module).__name__
    codec = ImageCodec(model.codec, model.fingerprint, precision="fp32", trusted=True)
    try:
        theirs = ExportedCodec(folder, threads=1)
        for rows, columns, share in ((1, 2, 0.3), (2, 2, 1.0), (5, 1, 0.0)):
            quality = share if codec.has_many_rates else None
            picture = _picture(rows * model.codec.stride - 7, columns * model.codec.stride - 9, codec.samples)
            files = {"distillkit": codec.encode(picture, quality), "the export": theirs.encode(picture, quality)}
            for writer, data in files.items():
                pictures = [each.decode(data).astype(int) for each in (codec, theirs)]
                levels = int(abs(pictures[0] - pictures[1]).max())
                if levels > max(_MOST_LEVELS, _MOST_LEVELS * codec.samples.peak // 255):
                    raise ValueError(f"a file of {writer} decodes to pictures {levels} levels apart")
    except Exception as error:  # of a runtime that lacks an operator, or of what was written
        raise PairError(
            f"codec {name}: expected an export that reads and writes the model's files, got {first_line(error)}. "
            "Nothing was written; deploy the codec as one safetensors file with `--to model`."
        ) from error


def check_exact(networks: Sequence[Network], folder: Path) -> None:
    """Check that the networks that must be exact are so in their runtime: they choose the entropy coder's tables.

    Raises:
        PairError: one computes something else, or cannot be run.
    """
    generator = torch.Generator().manual_seed(0)
    for network in networks:
        if not network.is_exact:
            continue
        given = [
            4 * torch.rand(each.shape, generator=generator, dtype=each.dtype) - 2 if each.is_floating_point() else each
            for each in network.examples
        ]
        with torch.no_grad():
            expected: Any = network.module(*given)
        expected = [expected] if isinstance(expected, Tensor) else expected
        try:
            found = load_network(folder, network.name, 1)([each.numpy() for each in given])
        except Exception as error:  # of a runtime that lacks an operator
            problem = f"one that its runtime can run, got {first_line(error)}"
        else:
            worst = max(_error(a, torch.from_numpy(b)) for a, b in zip(expected, found, strict=True))
            if worst <= _MOST_ERROR:
                continue
            problem = (
                f"float64, got relative errors of {worst:.0e} in its runtime, for which two computers would choose "
                "other tables for the entropy coder"
            )
        raise PairError(
            f"network {network.name}: expected {problem}. Nothing was written; deploy the codec as one safetensors "
            "file with `--to model`."
        )


def _error(expected: Tensor, found: Tensor) -> float:
    """Return the largest error, relative to the largest value; infinity where one is no number and the other is."""
    expected, found = expected.double(), found.double()
    known = expected.isfinite()
    if not torch.equal(known, found.isfinite()):
        return math.inf
    scale = max(1.0, float(expected[known].abs().max())) if known.any() else 1.0
    return float((expected - found)[known].abs().max()) / scale if known.any() else 0.0


def check_twin(model: TrainedModel) -> None:
    """Check that the codec that CompressAI builds from just the weights codes as the model does.

    Raises:
        PairError: it does not, or CompressAI cannot build it.
    """
    module: Any = model.codec.module
    name = type(module).__name__
    if not isinstance(model.codec, CompressAIAdapter) or not type(module).__module__.startswith("compressai."):
        raise PairError(
            f"model of pair {model.pair}: expected one of CompressAI's own architectures, got {name}; CompressAI "
            f"cannot build it. {_ADVICE}"
        )
    try:
        twin = type(module).from_state_dict(copy.deepcopy(module.state_dict())).eval()
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError):  # it takes some sizes for granted
        raise PairError(
            f"model of pair {model.pair}: expected sizes that CompressAI's {name}.from_state_dict can "
            f"tell from the weights, got others, which it could not load. {_ADVICE}"
        ) from None
    picture = _picture(model.codec.stride, 2 * model.codec.stride, RGB)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        ours, theirs = module.compress(pixels), twin.compress(pixels)
        decoded = [net.decompress(ours["strings"], ours["shape"])["x_hat"] for net in (module, twin)]
    if ours["strings"] != theirs["strings"] or not torch.allclose(decoded[0], decoded[1], atol=1e-3):
        raise PairError(
            f"model of pair {model.pair}: expected a {name} as CompressAI builds it, got one that was changed and "
            f"codes otherwise. {_ADVICE}"
        )


def _picture(height: int, width: int, samples: Samples) -> NDArray[Any]:
    """Return a picture of waves and noise."""
    y, x = np.mgrid[:height, :width]
    bands = range(samples.channels)
    waves = np.stack([128 + 70 * np.sin(x / (9 + c)) + 50 * np.cos(y / (7 + c)) for c in bands], 2)
    noisy = (waves + np.random.default_rng(0).normal(0, 6, waves.shape)).clip(0, 255)
    return (noisy * (samples.peak / 255)).astype(samples.dtype)
