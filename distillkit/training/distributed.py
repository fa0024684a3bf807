"""Several processes that train one model: what they agree on, and that only the first one writes.

Every method does nothing but its local part where there is one process.
"""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import DistillkitError, RecipeError, TrainingError
from ..model.device import accelerator, find_device

T = TypeVar("T")
_NEW, _OLD = "forward_sync_buffers", "broadcast_buffers"  # torch 2.14 renamed it
_NO_BUFFERS: dict[str, Any] = {
    _NEW if _NEW in inspect.signature(DistributedDataParallel).parameters else _OLD: False,
}


class OtherRankError(TrainingError):
    """Another process of this run ended, and has reported why."""


@final
class Ranks:
    """The processes of a run: those that `torchrun` started, or those of a program that set up `torch.distributed`.

    Attributes:
        rank: this process, counted from 0.
        num: how many there are.
        device: of this process.
    """

    def __init__(self, device: str = "auto") -> None:
        """Join the other processes, if there are any.

        Args:
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`, see `Recipe.device`.

        Raises:
            RecipeError: this machine has no such device, or not one for each process.
            TrainingError: the processes cannot reach each other.
        """
        joined = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if joined else int(os.environ.get("RANK", 0))
        self.num = dist.get_world_size() if joined else int(os.environ.get("WORLD_SIZE", 1))
        self.device = _device(device, self.rank, self.num)
        # Words between processes go over the CPU: NCCL would make each of them wait for its device.
        self._words: Any = None
        if self.num == 1:
            return
        try:
            if not joined:
                dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
            with self.on_device():
                dist.all_reduce(torch.zeros(1, device=self.device))
                self._words = dist.new_group(backend="gloo")
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"rank {self.rank} of {self.num}: the processes cannot exchange tensors on {self.device}: {error}. "
                "Start them with torchrun, or give torch.distributed.init_process_group a backend for this device."
            ) from error

    @contextmanager
    def on_device(self) -> Generator[None]:
        """Make the device the current one, and leave the autocast and `no_grad` contexts of the calling program."""
        with ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(torch.cuda.device(self.device))
            for kind in {"cpu", self.device.type}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            yield

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process."""
        return bool(self._largest(int(flag)))

    def _largest(self, number: int) -> int:
        if self.num == 1:
            return number
        word = torch.tensor(number)
        dist.all_reduce(word, dist.ReduceOp.MAX, group=self._words)
        return int(word)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        if self.num == 1:
            return [value]
        values: list[Any] = [None] * self.num
        dist.all_gather_object(values, value, group=self._words)
        return values

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        if self.num == 1:
            return tensor
        mean = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(mean)
        return mean / self.num

    def least(self, tensor: Tensor) -> Tensor:
        """Return the elementwise minimum of a tensor over the processes."""
        if self.num == 1:
            return tensor
        least = tensor.detach().clone()
        dist.all_reduce(least, dist.ReduceOp.MIN)
        return least

    def all(self, action: Callable[[], T]) -> T:
        """Do something in every process; if it fails in one, it fails in all.

        Raises:
            OtherRankError: it failed in another process, which says why.
        """
        if self.num == 1:
            return action()
        result, failure = None, None
        try:
            result = action()
        except Exception as error:
            failure = error
        failed = [rank for rank, bad in enumerate(self.gather(failure is not None)) if bad]
        if not failed:
            return result  # type: ignore[return-value]
        if failure is not None and self.rank == failed[0]:
            raise failure
        raise OtherRankError(f"rank {self.rank}: rank {failed[0]} could not continue.") from failure

    def first(self, action: Callable[[], T]) -> T:
        """Do something in the first process only and return its result in all of them; if it fails, all fail.

        Raises:
            OtherRankError: it failed in the first process, which says why.
        """
        if self.num == 1:
            return action()
        result = self.all(action if self.is_first else lambda: None)
        return self.gather(result)[0]

    def together(self, stream: Iterator[T]) -> Iterator[T]:
        """Yield what the streams of all processes yield, until one of them ends or fails."""
        if self.num == 1:
            yield from stream
            return
        while True:
            item, failure = None, None
            try:
                item = next(stream, None)
            except DistillkitError as error:
                failure = error
            worst = self._largest(2 if failure is not None else int(item is None))
            if failure is not None:
                raise failure
            if worst == 2:
                raise OtherRankError(f"rank {self.rank}: another one has no batch.")
            if worst == 1:
                return
            assert item is not None
            yield item

    def wrap(self, task: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over the processes.

        Call it again when parameters were frozen or freed, which a wrapper does not notice. What one step does not
        reach (the adapter of a term that is off) is not changed.
        """
        if self.num == 1:
            return task
        return DistributedDataParallel(task, find_unused_parameters=True, **_NO_BUFFERS)

    def without_averaging(self, task: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which gradients add up in this process alone, to be averaged by a later step."""
        return task.no_sync() if isinstance(task, DistributedDataParallel) else nullcontext()


def _device(choice: str, rank: int, num: int) -> torch.device:
    if num == 1:
        return find_device(choice, "recipe device", RecipeError)
    here = accelerator()
    if choice == "auto":
        choice = here if here == "cuda" else "cpu"
    if choice == "cpu":
        return torch.device(choice)
    if choice != "cuda":
        raise RecipeError(
            f"recipe device: expected 'auto', 'cpu' or 'cuda' for {num} processes, each of which takes a GPU of its "
            f"own, got '{choice}'; change it."
        )
    count = torch.accelerator.device_count() if here == choice else 0
    index = int(os.environ.get("LOCAL_RANK", rank % max(1, count)))
    if index >= count:
        devices = f"{count} x '{choice}'" if count else f"only '{here}'"
        raise RecipeError(
            f"recipe device: expected a device of this machine, which has {devices}, got '{choice}:{index}' for "
            f"process {rank} of {num}; name another device, or start fewer processes."
        )
    return torch.device(choice, index)


def batch_variance(features: Tensor) -> Tensor:
    """Return each channel's variance over batch and positions, of the batch that all processes of the run share.

    Args:
        features: shape (B, C, H, W), this process's share. Means over processes carry no gradient: for a teacher's
            features.

    Returns:
        Shape (C,).
    """
    mean = _mean_over_ranks(features.mean(dim=(0, 2, 3), keepdim=True))
    return _mean_over_ranks((features - mean).square().mean(dim=(0, 2, 3)))  # several times as fast as `Tensor.var`


def _mean_over_ranks(tensor: Tensor) -> Tensor:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    dist.all_reduce(tensor)
    return tensor / dist.get_world_size()


def refuse_several(what: str) -> None:
    """Refuse to do in several processes what is made for one: each would do all of it.

    Args:
        what: names it in the error.

    Raises:
        TrainingError: `torchrun` or another launcher started several.
    """
    joined = dist.is_available() and dist.is_initialized()
    num = dist.get_world_size() if joined else int(os.environ.get("WORLD_SIZE", 1))
    if num > 1:
        raise TrainingError(
            f"{what}: expected one process, got {num}, each of which would do all of it; start it without torchrun. "
            "`distillkit train` and `resume` are for several."
        )


def launch() -> str | None:
    """Return what tells the processes of this run on this machine from others; None where there is one process."""
    joined = dist.is_available() and dist.is_initialized()
    num = dist.get_world_size() if joined else int(os.environ.get("WORLD_SIZE", 1))
    keys = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    return " ".join([str(os.getppid()), *(os.environ.get(key, "") for key in keys)]) if num > 1 else None


def is_first_rank() -> bool:
    """Return whether this process is the only one, or the first of several."""
    return not dist.is_initialized() or dist.get_rank() == 0


def leave() -> bool:
    """Leave the other processes, and return whether there were any; for the end of a program.

    Afterwards `os._exit` is safer than a return: gloo's threads sometimes abort a process that ends.
    """
    if not dist.is_initialized():
        return False
    gc.collect()  # what still holds a group would end it too late
    dist.destroy_process_group()
    return True
