"""What would make a GPU wait: found on any device, by watching torch's operators."""

from __future__ import annotations

from collections import Counter
from typing import Any, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

#: Operators that read from the device, or send it what Python or a comparison made up, before Python may continue.
WAITING = (
    "_local_scalar_dense",  # float(tensor), tensor.item(), if tensor
    "lift_fresh",  # torch.tensor(number)
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "_linalg_check_errors",
    "repeat_interleave",
)
_FREE = ("_unsafe_view", "empty", "empty_like", "new_empty")  # that compute nothing


@final
class Waits(TorchDispatchMode):
    """Counts, for as long as the context lasts, the operators that would make a GPU wait.

    Attributes:
        found: name of an operator -> how often it ran.
        num_launches: of all operators that compute something; a view of a tensor does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.num_launches = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := waiting(func, args)) is not None:
            self.found[name] += 1
        self.num_launches += (
            func.namespace == "aten" and func.overloadpacket.__name__ not in _FREE and not is_view(func)
        )
        return func(*args, **(kwargs or {}))


def waiting(operator: Any, args: Any) -> str | None:
    """Return the name of an operator for which a GPU would wait; None for others."""
    name = operator.overloadpacket.__name__
    if name == "index" and any(each is not None and each.dtype == torch.bool for each in args[1]):
        return "nonzero"  # of a mask, to find how much it leaves
    return name if name in WAITING else None


def is_view(operator: Any) -> bool:
    """Return whether an operator only looks at its argument's memory in another way."""
    aliases = [result.alias_info for result in operator._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
