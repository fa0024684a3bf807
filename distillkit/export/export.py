"""One trained model to a folder or file that is used without distillkit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..codec.files import whole_file
from ..errors import DistillkitError, PairError
from ..model.adapters import CodecAdapter, entropy_path
from ..model.file import TrainedModel, save_model
from ..model.lmbda import LmbdaRange
from .check import check_exact, check_folder, check_twin
from .driver import FORMAT
from .networks import Network, need, write_onnx, write_openvino, write_program
from .parts import take_apart
from .progress import Progress
from .recorded import record

Target = Literal["model", "compressai", "onnx", "openvino", "torch"]

#: What the driver needs of distillkit; copied, so that an export needs no installation of it.
_DRIVER = (
    "errors.py",
    *(f"codec/{name}.py" for name in ("bitstream", "calls", "checksums", "coder", "free", "reading", "stopwatch")),
    *(f"export/{name}.py" for name in ("coding", "driver", "memory", "runtimes", "steps")),
    *(f"data/{name}.py" for name in ("content", "headers", "images", "named_colours", "profiles", "rgb")),
    *(f"data/{name}.py" for name in ("samples", "sound", "stored")),
)
_PACKAGE = "distillkit_codec"


def export_model(
    model: TrainedModel,
    to: Target,
    out: str | Path,
    *,
    overwrite: bool = False,
    on_part: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write a trained model for deployment, and return the files.

    Args:
        model: what is exported; `load_model` reads it.
        to: `model`: one safetensors file, for distillkit; `compressai`: a checkpoint (`.pth.tar`) of CompressAI's own
            architecture; `onnx` and `openvino`: a network of these runtimes for each part, tables, and a driver that
            needs neither torch nor distillkit; `torch`: the same with `torch.export` programs, which need torch only.
        out: the file (`model`, `compressai`) or a new or empty folder.
        overwrite: whether a file that exists may be replaced; a folder with files never is.
        on_part: receives lines on what is recorded, written and tried; of a large codec this takes minutes.

    Raises:
        PairError: the codec's structure has no such form.
        DistillkitError: a package is missing, or `out` cannot be written.
    """
    out = Path(out)
    if to in ("model", "compressai"):
        if out.exists() and not out.is_dir() and not overwrite:
            raise DistillkitError(
                f"export {out}: exists already and would be overwritten; choose another file or pass `--overwrite`."
            )
        return [_write_file(model, to, out)]
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise DistillkitError(f"export {out}: expected a new or empty folder, got one with files; choose another one.")
    need(to)
    progress = Progress(on_part)
    try:
        return _write_folder(model, to, out, _named(model.codec), progress)
    except PairError as error:  # its modules have no such names, or it does more than they tell
        by_name = error
    try:
        return _write_folder(model, to, out, _recorded(model.codec, progress), progress)
    except PairError as recorded:
        raise PairError(f"{recorded} Its parts were first taken by their names; that failed, too: {by_name}") from None


@dataclass(frozen=True)
class _Form:
    """A codec for another runtime: its networks, tables, and what stands in `codec.json` of how they work together."""

    networks: list[Network]
    tables: Mapping[str, Tensor]
    about: dict[str, Any]


def _named(codec: CodecAdapter) -> _Form:
    parts = take_apart(codec)
    about = {
        "flow": parts.flow,
        "inputs": parts.inputs,
        "latents": {"y": parts.inputs["g_s"]} | ({"z": parts.inputs["h_s"]} if "h_s" in parts.inputs else {}),
        "anchor_parity": parts.anchor_parity,
        "entropy_models": parts.entropy_models,
        "context_channels": parts.context_channels,
        "num_substreams": {"factorized": 1, "checkerboard": 3}.get(parts.flow, 2),
    }
    return _Form(parts.networks, parts.tables, about)


def _recorded(codec: CodecAdapter, progress: Progress) -> _Form:
    recorded = record(codec, progress.note)
    about = {
        "flow": "program",
        "entropy_models": recorded.entropy_models,
        "num_substreams": len(recorded.substreams),
        "substreams": recorded.substreams,
        "encode": recorded.encode,
        "decode": recorded.decode,
    }
    return _Form(recorded.networks, recorded.tables, about)


def _write_folder(model: TrainedModel, to: Target, out: Path, form: _Form, progress: Progress) -> list[Path]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write = {"torch": write_program, "onnx": write_onnx, "openvino": write_openvino}[to]
        paths = [path for network in progress.written(form.networks) for path in write(network, out)]
        paths += [*_write_tables(model, form, to, out), *_write_driver(out)]
        progress.note("trying it: it reads the model's files, and the model its files")
        check_exact(form.networks, out)
        check_folder(model, out)
    except OSError as error:
        raise DistillkitError(f"export {out}: cannot be written: {error.strerror}; choose another place.") from None
    except DistillkitError:
        shutil.rmtree(out, ignore_errors=True)  # nothing remains that decodes to other pictures
        raise
    return paths


def _write_file(model: TrainedModel, to: Target, out: Path) -> Path:
    if out.is_dir():
        raise DistillkitError(f"export {out}: expected the name of a file, got a folder; add a name to it.")
    if to == "model":
        save_model(out, model.codec, model.pair, model.options, model.part, model.lmbda, objective=model.objective)
        return out
    module = model.codec.module
    check_twin(model)
    try:
        with whole_file(out) as part, part.open("wb") as file:  # what was there before is kept until it is whole
            torch.save({"state_dict": module.state_dict()}, file)
    except (OSError, RuntimeError) as error:
        raise DistillkitError(f"export {out}: cannot be written: {error}.") from None
    return out


def _write_tables(model: TrainedModel, form: _Form, to: Target, out: Path) -> list[Path]:
    samples = model.codec.samples
    about = {
        "format": FORMAT,
        "pair": model.pair,
        "part": model.part,
        "lmbda": asdict(model.lmbda) if isinstance(model.lmbda, LmbdaRange) else model.lmbda,
        # Not of the module as it is now: CompressAI's masked convolutions mask their weights when they first run.
        "fingerprint": model.fingerprint,
        "entropy_path": entropy_path(model.codec.module),
        "reads": list(model.codec.reads),
        "runtime": to,
        "stride": model.codec.stride,
        "samples": [samples.channels, samples.bits],
        "networks": [network.name for network in form.networks],
        **form.about,
    }
    paths = [out / "codec.json", out / "tables.npz"]
    paths[0].write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    np.savez_compressed(paths[1], **{name: tensor.numpy() for name, tensor in form.tables.items()})
    return paths


def _write_driver(out: Path) -> list[Path]:
    source = files("distillkit")
    paths = []
    for name in _DRIVER:
        target = out / _PACKAGE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
        paths.append(target)
    for folder in {out / _PACKAGE, *(path.parent for path in paths)}:
        (folder / "__init__.py").touch()
    run = out / "run.py"
    run.write_text(source.joinpath("export/run.py.txt").read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copymode(Path(str(source.joinpath("export/run.py.txt"))), run)
    return [*paths, run]
