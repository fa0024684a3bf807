"""A trained codec as one file: weights, entropy coder tables, and what is needed to build it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..hooks.loader import Plugins, load_installed
from .adapters import CodecAdapter, CompressAIAdapter, fingerprint
from .claims import build_checked, check_fingerprint, check_finite, read_claims, refuse_sources
from .device import find_device
from .lmbda import Lmbda, LmbdaRange
from .rest import completed, without
from .tensors import read_tensors, write_tensors
from .weights import fit_tables
from .zoo import located

FORMAT = "distillkit-model-1"
MSE: Mapping[str, Any] = {"name": "core.mse"}  #: the objective of a file that names none
MODEL_NAME = "model.safetensors"  #: of the trained model in its run folder


def model_file(model: str | Path) -> Path:
    """Return the file that a model's name means: itself, that in a run folder, or that of `zoo:NAME`."""
    path = located(model)
    return path / MODEL_NAME if path.is_dir() else path


def model_name(file: Path) -> str:
    """Return what a model's file is called in a table: its run's name, or its own."""
    return file.parent.name if file.name == MODEL_NAME else file.stem


@dataclass(frozen=True)
class TrainedModel:
    """A codec read from a file.

    Attributes:
        codec: the codec, in eval mode, ready to compress.
        pair: name of the pair that it comes from.
        options: the pair's options.
        part: which of the pair's two codecs it is.
        lmbda: rate-distortion trade-off that it was trained for, or the range of a codec of many rates.
        objective: what it was trained for: its name, and its options.
        fingerprint: hash of weights and tables, see `fingerprint`.
    """

    codec: CodecAdapter
    pair: str
    options: dict[str, Any]
    part: Literal["student", "teacher"]
    lmbda: Lmbda
    fingerprint: str
    objective: dict[str, Any] = field(default_factory=lambda: dict(MSE))


def save_model(
    path: Path,
    codec: CodecAdapter,
    pair: str,
    options: dict[str, Any],
    part: Literal["student", "teacher"],
    lmbda: Lmbda,
    provenance: Mapping[str, Any] | None = None,
    *,
    objective: Mapping[str, Any] = MSE,
    half: bool = False,
    rest: str | None = None,
    validation: Mapping[str, float] | None = None,
) -> None:
    """Compute the entropy coder's tables and write the codec to `path` (safetensors).

    Args:
        path: the file.
        codec: what is written.
        pair: name of the pair that it comes from.
        options: the pair's options.
        part: which of the pair's two codecs it is.
        lmbda: rate-distortion trade-off that it was trained for, or the range of a codec of many rates.
        objective: what it was trained for: its name, and its options.
        half: write weights in half precision, and others as short as holds them exactly: buffers, and weights that
            the codec does not let be trained. Weights are rounded in `codec`, too, and the tables and the fingerprint
            follow from the rounded ones: both are one model.
        rest: `zoo:NAME` of a model that ships: parts that are the same there are left out of the file.
        provenance: what its weights depend on, see `training.folder.provenance`.
        validation: what the run measured of it on held-out pictures; kept in the file.

    Raises:
        CheckpointError: the file cannot be written.
    """
    if half:
        for name, parameter in codec.module.named_parameters():
            if any(fnmatch(name, pattern) for pattern in codec.trainable):
                parameter.data = parameter.data.half().float()
    codec.update()
    state = codec.module.state_dict()
    if half:
        state = {name: _smallest(tensor) for name, tensor in state.items()}
    if rest:
        state = without(state, rest)
    about: dict[str, Any] = {"pair": pair, "options": options, "part": part}
    about["lmbda"] = asdict(lmbda) if isinstance(lmbda, LmbdaRange) else lmbda
    about |= {"objective": dict(objective), "fingerprint": fingerprint(codec.module)}
    more = {"provenance": json.dumps(provenance, sort_keys=True)} if provenance else {}
    more |= {"rest": rest} if rest else {}
    more |= {"validation": json.dumps(dict(validation), sort_keys=True)} if validation else {}
    write_tensors(path, state, {"format": FORMAT, "model": json.dumps(about, sort_keys=True), **more})


def load_model(path: str | Path, plugins: Plugins | None = None, device: str = "cpu") -> TrainedModel:
    """Read a trained codec; the teacher is not needed for a student.

    Args:
        path: a `model.safetensors`, a run folder that holds one, or `zoo:NAME` for a model that ships (see `zoo`).
        plugins: where its pair is registered; by default the installed plugin of that name.
        device: where the codec is to run, see `Recipe.device`.

    Raises:
        CheckpointError: the file is missing, damaged or not a model.
        RecipeError: its pair is not registered.
        DistillkitError: there is no such device.
    """
    where = find_device(device, "device")
    path = model_file(path)
    if not path.is_file():
        raise CheckpointError(f"model {path}: no such file. A finished run has a model.safetensors in its folder.")
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"model {path}: expected format {FORMAT}, got {metadata.get('format')!r}; name a run's model.safetensors."
        )
    if rest := metadata.get("rest"):
        tensors = completed(tensors, rest, path)
    claims = read_claims(path, metadata.get("model"))
    plugins = plugins or load_installed([claims.pair.partition(".")[0]])
    pair_class, config = plugins.configure("pair", claims.pair, claims.options, f"model {path}: pair")
    pair = pair_class(config)
    refuse_sources(path, pair, claims.part)
    build = pair.build_student if claims.part == "student" else pair.build_teacher
    check_finite(path, tensors)
    codec = build_checked(path, build, tensors)
    try:
        fit_tables(codec.module, tensors)
        codec.module.load_state_dict(tensors)
        restore_tables(codec, tensors)
    except Exception as error:  # of the codec's own code, too, on tables that a stranger wrote
        raise CheckpointError(
            f"model {path}: its weights do not fit pair {claims.pair} with options {claims.options}: {error!r}. "
            "Was the plugin changed since it was trained?"
        ) from None
    codec.module.eval()
    check_fingerprint(path, claims.fingerprint, fingerprint(codec.module))
    codec.module.to(where)
    about: dict[str, Any] = claims.model_dump(exclude_none=True)
    about["lmbda"] = claims.lmbda  # as a number or a range, not as a table
    return TrainedModel(codec=codec, **about)


def restore_tables(codec: CodecAdapter, tensors: Mapping[str, Tensor]) -> None:
    """Have a codec whose weights were read compute the tables that it keeps outside of its state.

    Args:
        codec: has the weights.
        tensors: its state, which stays the same bit for bit.
    """
    classes = {parent for part in codec.module.modules() for parent in type(part).__mro__}
    own = (parent for parent in classes if "update" in vars(parent) and not parent.__module__.startswith("compressai."))
    if type(codec) is not CompressAIAdapter or next(own, None) is not None:
        codec.update()
        codec.module.load_state_dict(tensors)


def _smallest(tensor: Tensor) -> Tensor:
    """Return the same values as 8-bit integers or in half precision, if one of these holds them exactly."""
    shorter = (tensor.to(dtype) for dtype in (torch.uint8, torch.float16))
    return next((each for each in shorter if torch.equal(each.to(tensor.dtype), tensor)), tensor)
