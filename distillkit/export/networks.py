"""The networks of a codec as programs of other runtimes: ONNX, OpenVINO, torch.export; pictures of any size."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ..errors import DistillkitError, PairError
from .error_functions import error_functions
from .exact import in_float64

LARGEST = 4096  #: side of a picture that a network takes, in strides: 65535 pixels at a stride of 16


@final
@dataclass(frozen=True)
class Network:
    """A part of a program between two of the coder's steps.

    Attributes:
        name: of its file.
        module: from the tensors called `inputs` to those called `outputs`.
        inputs: names of values.
        outputs: names of values.
        examples: an input each.
        dynamic: of each input, for each axis whose length goes with the picture's: how many positions there are for a
            stride of the picture, and which of its sides goes along; or None where it is not so simple.
        is_exact: whether it computes in float64.
    """

    name: str
    module: nn.Module
    inputs: list[str]
    outputs: list[str]
    examples: list[Tensor]
    dynamic: list[dict[int, tuple[int, str] | None]]
    is_exact: bool


def write_program(network: Network, folder: Path) -> list[Path]:
    """Write a network as `<name>.pt2` (`torch.export`), which `torch.export.load` reads without distillkit.

    Raises:
        PairError: it cannot be traced.
    """
    path = folder / f"{network.name}.pt2"
    torch.export.save(_trace(network), path)
    return [path]


def write_onnx(network: Network, folder: Path) -> list[Path]:
    """Write a network as `<name>.onnx`: inputs `x`, `x1`, ..., outputs `y`, `y1`, ..., height and width dynamic.

    Raises:
        PairError: it cannot be traced or converted.
    """
    traced = _trace(network)
    try:
        with quiet():
            if network.is_exact:
                traced = traced.run_decompositions(in_float64())
            names = [[f"{side}{i or ''}" for i in range(len(n))] for side, n in _sides(network)]
            known: dict[str, Any] = {"dynamo": True, "input_names": names[0], "output_names": names[1]}
            if network.is_exact:
                known |= {"custom_translation_table": error_functions(), "optimize": False}
            program: Any = torch.onnx.export(traced, **known)
            if network.is_exact:  # the other rewrites take minutes, and drop terms below 1e-8
                optimizer: Any = importlib.import_module("onnxscript.optimizer")
                optimizer.fold_constants(program.model)
                optimizer.remove_unused_nodes(program.model)
    except Exception as error:  # whatever the converter meets
        raise PairError(
            f"network {network.name}: expected one that torch.onnx can convert, got {first_line(error)}; deploy "
            "the codec as one safetensors file with `--to model`."
        ) from error
    path = folder / f"{network.name}.onnx"
    program.save(path, external_data=False)
    return [path]


def write_openvino(network: Network, folder: Path) -> list[Path]:
    """Write a network as `<name>.xml` and `<name>.bin` (OpenVINO), weights in float32.

    One that must be exact stays ONNX, because OpenVINO computes in float32 at most.

    Raises:
        PairError: it cannot be traced or converted.
    """
    import openvino

    (path,) = write_onnx(network, folder)
    if network.is_exact:
        return [path]
    written = [path.with_suffix(".xml"), path.with_suffix(".bin")]
    openvino.save_model(openvino.convert_model(path), written[0], compress_to_fp16=False)
    path.unlink()
    return written


def need(target: str) -> None:
    """Check that what a target needs is installed.

    Raises:
        DistillkitError: a package is missing.
    """
    for module in {"onnx": ("onnxscript",), "openvino": ("onnxscript", "openvino")}.get(target, ()):
        try:
            __import__(module)
        except ImportError:
            raise DistillkitError(
                f"export: package {module} is not installed; `pip install 'distillkit-lic[{target}]'`."
            ) from None


def _sides(network: Network) -> list[tuple[str, list[str]]]:
    return [("x", network.inputs), ("y", network.outputs)]


def _trace(network: Network) -> torch.export.ExportedProgram:
    dims = {side: torch.export.Dim(side, min=1, max=LARGEST) for side in ("height", "width")}
    axes = []
    for dynamic in network.dynamic:
        rules = {axis: torch.export.Dim.AUTO if rule is None else _times(*rule, dims) for axis, rule in dynamic.items()}
        axes.append(rules)
    try:
        with quiet():
            return torch.export.export(network.module, tuple(network.examples), dynamic_shapes=(*axes,))
    except Exception as error:  # whatever the tracer meets in a network that it was not made for
        raise PairError(
            f"network {network.name}: expected one that torch.export can trace for pictures of any size, got "
            f"{first_line(error)}; deploy the codec as one safetensors file with `--to model`."
        ) from error


def _times(number: int, side: str, dims: dict[str, Any]) -> Any:
    return dims[side] if number == 1 else number * dims[side]


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of its text."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep the exporters' progress off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
