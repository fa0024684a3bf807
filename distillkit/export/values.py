"""Lists of a tensor's values, while a program is recorded: codecs hand them to the coder, and make tensors of them."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor


@final
class Numbers(list[Any]):
    """Stands for the list of a tensor's values: one entry, the tensor."""


@contextmanager
def values_as_numbers() -> Generator[None]:
    """Have tensors give `Numbers` for lists, and be made of them, in this thread alone."""
    importlib.import_module("torch._dynamo")  # it compares torch's functions with its own when it is imported
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    thread, base = threading.get_ident(), torch._C.TensorBase  # pyright: ignore[reportPrivateUsage]
    classes: list[Any] = [torch.Tensor, FakeTensor, FunctionalTensor]
    before = [vars(each).get("tolist") for each in classes]
    tensor = torch.tensor

    def list_of(values: Any) -> Any:
        return Numbers([values]) if threading.get_ident() == thread else base.tolist(values)

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return _joined(args[0]) if args and isinstance(args[0], Numbers) else base.__new__(cls, *args, **kwargs)

    def tensor_of(data: Any, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(data, Numbers):
            return tensor(data, *args, **kwargs)
        return _joined(data) if kwargs.get("dtype") is None else _joined(data).to(kwargs["dtype"])

    for each in classes:
        each.tolist = list_of
    torch.Tensor.__new__, torch.tensor = new, tensor_of  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for each, own in zip(classes, before, strict=True):
            del each.tolist
            if own is not None:
                each.tolist = own
        del torch.Tensor.__new__
        torch.tensor = tensor


def _joined(numbers: Numbers) -> Tensor:
    return torch.cat([values.reshape(-1) for values in numbers])
