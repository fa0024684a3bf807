"""From the name of a trained model to a codec that writes and reads files, in one call."""

from __future__ import annotations

from pathlib import Path

from ..hooks.loader import Plugins
from ..model.file import load_model
from .fast.codec import Precision
from .runtime import ImageCodec


def load_codec(
    model: str | Path,
    *,
    plugins: Plugins | None = None,
    precision: Precision = "auto",
    trusted: bool = False,
    device: str = "cpu",
) -> ImageCodec:
    """Return the codec of a trained model, ready to code images: `load_codec("runs/student").encode(image)`.

    Args:
        model: a `model.safetensors`, a run folder that holds one, or `zoo:NAME` for a model that ships.
        plugins: where its pair is registered; by default the installed plugin of that name.
        precision: of analysis and synthesis, see `ImageCodec`.
        trusted: also use a decoder that forged files can crash, see `ImageCodec`.
        device: where it runs: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`. Files are the same wherever they are read.

    Raises:
        CheckpointError: the file is missing, damaged or not a model.
        PairError: the codec cannot compress.
    """
    return ImageCodec(load_model(model, plugins, device), precision=precision, trusted=trusted)
