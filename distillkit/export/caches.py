"""What a codec keeps of the last picture (a mask of its size, say), so that a trace neither reads nor leaves any."""

from __future__ import annotations

import copy
from typing import Any, final

import torch
from torch import Tensor, nn

from ..model.adapters import CodecAdapter

_KEPT = ("_parameters", "_modules")
_CONTAINERS = (dict, list, set)


def code_smallest(codec: CodecAdapter) -> None:
    """Code a picture of one stride a side: a trace is of larger ones, for which all that is kept is made again."""
    with torch.no_grad():
        blank = torch.zeros(1, codec.samples.channels, codec.stride, codec.stride)
        codec.decompress(codec.compress(blank))


@final
class Caches:
    """The attributes of a network's modules, as they are now, except for parameters and submodules."""

    def __init__(self, module: nn.Module) -> None:
        self._now = [
            (part, {name: _own(value) for name, value in vars(part).items() if name not in _KEPT})
            for part in module.modules()
        ]

    def restore(self) -> None:
        """Give the modules these attributes again, and no others."""
        for part, attributes in self._now:
            own = vars(part)
            for name in [name for name in own if name not in attributes and name not in _KEPT]:
                del own[name]
            own.update({name: _own(value) for name, value in attributes.items()})


def _own(value: Any) -> Any:
    """Return a container's copy, for what is put into it must not stay; anything else itself."""
    return copy.copy(value) if isinstance(value, _CONTAINERS) and not isinstance(value, Tensor) else value
