"""What observers see of the model of a run: copies of it as it would be saved now."""

from __future__ import annotations

from typing import final

from torch import Tensor

from ...model.adapters import CodecAdapter
from ...model.copies import copy_codec
from .base import Extensions


@final
class ModelView:
    """The model of a run in progress, as copies: changing a copy does not change the run."""

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions

    def copy(self) -> CodecAdapter:
        """Return a copy of the codec, on the CPU and in eval mode; call its `update` before it compresses."""
        with self._extensions.as_saved() as codec:
            copied = copy_codec(codec)
        copied.module.requires_grad_(False).eval().cpu()
        return copied

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the weights and buffers, on the CPU."""
        with self._extensions.as_saved() as codec:
            return {name: tensor.detach().cpu().clone() for name, tensor in codec.module.state_dict().items()}
