"""The description in a model's file, checked before anything is built from it: it may come from a stranger."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (  # torch's way to tensors without memory; only its name is private
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode  # likewise to every operation

from ..errors import CheckpointError
from .adapters import CodecAdapter, as_codec
from .lmbda import Lmbda, as_lmbda

# Building a codec may make this many times the values and tensors that its file has, and this many more.
_VALUES, _TENSORS = (4, 2**26), (20, 5000)


class Claims(BaseModel):
    """The metadata of a model's file; for the fields see `TrainedModel`."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    pair: str
    options: dict[str, Any]
    part: Literal["student", "teacher"]
    lmbda: Lmbda
    fingerprint: str = Field(pattern="^[0-9a-f]{32}$")
    objective: dict[str, Any] | None = None

    @field_validator("objective")
    @classmethod
    def _named(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and not isinstance(value.get("name"), str):
            raise ValueError("expected a name")
        return value

    @field_validator("lmbda", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> Lmbda:
        return as_lmbda(value)


def read_claims(path: Path, text: str | None) -> Claims:
    """Return the description in the file at `path`.

    Raises:
        CheckpointError: it is no JSON, or something is missing, unknown or of the wrong type.
    """
    try:
        return Claims.model_validate(json.loads(text or ""))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        problem = f"{type(error).__name__}, no JSON"
    raise CheckpointError(
        f"model {path}: expected a description of the model in its metadata, got a damaged one ({problem}); copy the "
        "file again, or ask where it comes from."
    )


def refuse_sources(path: Path, pair: Any, part: str) -> None:
    """Refuse options with which building the codec would open another file or the network: its weights are in its file.

    Raises:
        CheckpointError: there are such options.
    """
    if sources := pair.sources_of(part):
        raise CheckpointError(
            f"model {path}: expected a codec whose weights are in its file, got options that name another source of "
            f"weights ({', '.join(sources)}); a file that distillkit wrote has none, so do not trust it."
        )


def build_checked(path: Path, build: Callable[[], Any], tensors: Mapping[str, Tensor]) -> CodecAdapter:
    """Build a codec with options that a stranger may have chosen: its shapes are compared before memory is taken.

    Args:
        path: names the file in errors.
        build: builds the codec.
        tensors: of the file; tables of entropy models may have any size.

    Raises:
        CheckpointError: names or shapes of weights differ, the options are none that the codec can be built with, or
            it needs far more memory or parts than the file has.
    """
    num_values = sum(tensor.numel() for tensor in tensors.values())
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Limit(len(tensors), math.inf):  # takes no memory
            module = as_codec(build()).module
    except (DataDependentOutputException, DynamicOutputShapeException):
        pass  # it computes with values while it is built: it is compared when it is
    except Exception as error:  # of the pair's own code, by options that a stranger chose
        raise _not_built(path, error) from None
    else:
        _check_shapes(path, module, tensors)
    try:
        with _Limit(len(tensors), num_values):
            codec = as_codec(build())
    except Exception as error:
        raise _not_built(path, error) from None
    _check_shapes(path, codec.module, tensors)
    return codec


def _not_built(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).partition("\nException raised")[0].split())[:300]
    return CheckpointError(
        f"model {path}: its codec cannot be built with the options in the file ({type(error).__name__}: {reason}); "
        "copy it again, or ask where it comes from."
    )


@final
class _Limit(TorchDispatchMode):
    """Stops the building of a codec that is far larger than the file that fills it.

    Args:
        num_tensors: in the file.
        num_values: in them, or infinity.
    """

    def __init__(self, num_tensors: int, num_values: float) -> None:
        super().__init__()
        self._values_left = _VALUES[0] * num_values + _VALUES[1]
        self._tensors_left = _TENSORS[0] * num_tensors + _TENSORS[1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, unless it makes one tensor too many from nothing."""
        size = args[0] if args and isinstance(args[0], list | tuple) else ()
        if size and all(isinstance(side, int) for side in size):  # torch.empty and the like
            self._values_left -= math.prod(size)
            self._tensors_left -= 1
            if self._values_left < 0 or self._tensors_left < 0:
                raise ValueError(f"its tensors are many times those in the file, such as one of shape {tuple(size)}")
        return func(*args, **(kwargs or {}))


def _check_shapes(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    tables = set(_tables(module))
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in tables}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in tables}
    wrong = [name for name in sorted(expected.keys() | got.keys()) if expected.get(name) != got.get(name)]
    if wrong:
        raise CheckpointError(
            f"model {path}: its weights do not fit its pair and options: {len(wrong)} differ, such as {wrong[0]}: "
            f"expected shape {expected.get(wrong[0])}, got {got.get(wrong[0])}. Was the plugin changed since it was "
            "trained?"
        )


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that every weight is a finite real number.

    Raises:
        CheckpointError: some are not; names the first tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_complex() or (tensor.is_floating_point() and not bool(tensor.isfinite().all())):
            raise CheckpointError(
                f"model {path}: expected finite weights, got some in {name} that are not; train it again, or take an "
                "earlier checkpoint."
            )


def check_fingerprint(path: Path, claimed: str, got: str) -> None:
    """Check that the weights are those that the file names.

    Raises:
        CheckpointError: they were altered.
    """
    if claimed != got:
        raise CheckpointError(
            f"model {path}: expected weights of fingerprint {claimed}, got {got}: it was altered since it was trained; "
            "take the original."
        )


def _tables(module: nn.Module) -> Iterator[str]:
    for prefix, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            if hasattr(part, "_quantized_cdf") or buffer.numel() == 0:  # filled by `update`
                yield f"{prefix}.{name}" if prefix else name
