"""The networks of a codec as programs of other runtimes: ONNX, OpenVINO, torch.export; pictures of any size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import DistillkitError, PairError
from .parts import EXACT, CodecParts

#: Largest latent side that a program takes, in positions: pictures of 65535 pixels at a stride of 16.
_LARGEST = 4096


def export_programs(parts: CodecParts, folder: Path) -> list[Path]:
    """Write each network as `<name>.pt2` (`torch.export`), which `torch.export.load` reads without distillkit.

    Raises:
        PairError: a network cannot be traced.
    """
    paths = []
    for name, network in parts.networks.items():
        paths.append(folder / f"{name}.pt2")
        torch.export.save(_trace(name, network, parts.inputs[name]), paths[-1])
    return paths


def export_onnx(parts: CodecParts, folder: Path) -> list[Path]:
    """Write each network as `<name>.onnx`: input `x`, output `y`, height and width dynamic.

    Raises:
        PairError: a network cannot be traced or converted.
        DistillkitError: the extra `onnx` is not installed.
    """
    _need("onnxscript", "onnx")
    paths = []
    for name, network in parts.networks.items():
        traced = _trace(name, network, parts.inputs[name])
        try:
            with _quiet():
                program: Any = torch.onnx.export(traced, dynamo=True, input_names=["x"], output_names=["y"])
        except Exception as error:  # whatever the converter meets
            raise PairError(
                f"network {name}: expected one that torch.onnx can convert, got {_first_line(error)}; deploy the codec "
                "with `--to torch`, or as one safetensors file with `--to model`."
            ) from error
        paths.append(folder / f"{name}.onnx")
        program.save(paths[-1], external_data=False)
    return paths


def export_openvino(parts: CodecParts, folder: Path) -> list[Path]:
    """Write each network as `<name>.xml` and `<name>.bin` (OpenVINO), weights in float32.

    Those that must be exact stay ONNX, because OpenVINO computes in float32 at most.

    Raises:
        PairError: a network cannot be traced.
        DistillkitError: the extra `openvino` is not installed.
    """
    _need("openvino", "openvino")
    import openvino

    paths = []
    for path in export_onnx(parts, folder):
        if path.stem in EXACT:
            paths.append(path)
            continue
        model = openvino.convert_model(path)
        paths.append(path.with_suffix(".xml"))
        openvino.save_model(model, paths[-1], compress_to_fp16=False)
        path.unlink()
    return paths


def _trace(name: str, network: nn.Module, given: tuple[int, int]) -> torch.export.ExportedProgram:
    channels, multiple = given
    height, width = (torch.export.Dim(axis, min=1, max=_LARGEST) for axis in ("height", "width"))
    sizes = {2: multiple * height, 3: multiple * width} if multiple > 1 else {2: height, 3: width}
    # Sizes of 1 would be taken for constants.
    dtype = torch.float64 if name in EXACT else torch.float32
    example = torch.rand(1, channels, 2 * multiple, 3 * multiple, dtype=dtype)
    try:
        with _quiet():
            return torch.export.export(network.cpu(), (example,), dynamic_shapes=(sizes,))
    except Exception as error:  # whatever the tracer meets in a network that it was not made for
        raise PairError(
            f"network {name}: expected one that torch.export can trace for pictures of any size, got "
            f"{_first_line(error)}; deploy the codec as one safetensors file with `--to model`."
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _need(module: str, extra: str) -> None:
    try:
        __import__(module)
    except ImportError:
        raise DistillkitError(
            f"export: package {module} is not installed; `pip install 'distillkit-lic[{extra}]'`."
        ) from None


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the exporters' progress off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
