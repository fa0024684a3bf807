"""Loads a network of an export with the runtime that its file is for; torch only for its own programs.

A network takes and gives lists of arrays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DistillkitError

Arrays = list[NDArray[Any]]
Network = Callable[[Arrays], Arrays]
_NAME = re.compile(r"[a-z_]+(-[0-9]+)?")


def load_network(folder: Path, name: str, threads: int) -> Network:
    """Return a network of an export.

    Args:
        folder: the export.
        name: of the network.
        threads: of the runtime; 0 for its own choice.

    Raises:
        DistillkitError: there is no such network, or its runtime is not installed.
    """
    if not _NAME.fullmatch(name):  # a path, perhaps
        raise DistillkitError(f"export {folder}: expected the name of a network, got {name!r}; export again.")
    load = next((load for suffix, load in _LOADERS.items() if (folder / f"{name}{suffix}").is_file()), None)
    if load is None:
        raise DistillkitError(f"export {folder}: expected network {name}, got no such file; export again.")
    return load(folder, name, threads)


def _onnx(folder: Path, name: str, threads: int) -> Network:
    try:
        import onnxruntime
    except ImportError:
        raise DistillkitError(f"export {folder}: it runs on ONNX Runtime; `pip install onnxruntime`.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda given: [np.asarray(value) for value in session.run(None, dict(zip(names, given, strict=True)))]


def _openvino(folder: Path, name: str, threads: int) -> Network:
    try:
        import openvino
    except ImportError:
        raise DistillkitError(f"export {folder}: it runs on OpenVINO; `pip install openvino`.") from None
    # Left to itself it computes all layers in bfloat16 where the processor can: the last ones need more.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    model = openvino.Core().compile_model(folder / f"{name}.xml", "CPU", options)
    # A new request each time: threads may share the codec.
    return lambda given: [value.copy() for value in model.create_infer_request().infer(given).to_tuple()]


def _program(folder: Path, name: str, threads: int) -> Network:
    try:
        import torch
    except ImportError:
        raise DistillkitError(f"export {folder}: it runs on torch; `pip install torch`.") from None
    if threads:
        torch.set_num_threads(threads)
    # The guards are the example's sizes where the tracer saw a 1; the networks are for all sizes.
    network = torch.export.load(folder / f"{name}.pt2").module(check_guards=False)

    def run(given: Arrays) -> Arrays:
        with torch.no_grad():
            found = network(*(torch.from_numpy(value) for value in given))
        return [value.numpy() for value in ([found] if isinstance(found, torch.Tensor) else found)]

    return run


_LOADERS = {".onnx": _onnx, ".xml": _openvino, ".pt2": _program}
