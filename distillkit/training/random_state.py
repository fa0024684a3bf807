"""The generators of random numbers: seeded by process, saved and brought back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .distributed import Ranks


def seed_everything(seed: int) -> None:
    """Seed every generator that a codec or plugin may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_rank(seed: int, rank: int, step: int = 0) -> None:
    """Seed for a run's steps from `step` on; each process draws its own noise."""
    seed_everything(seed + 1_000_003 * rank + 7_919 * step)


def random_state(ranks: Ranks) -> dict[str, Any]:
    """Return the generators of all processes (torch's, Python's and NumPy's), as entries of a checkpoint."""
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    kind, words, *rest = np.random.get_state()
    of_numpy = (str(kind), np.asarray(words).tolist(), *rest)
    first, *others = ranks.gather((torch.get_rng_state(), on_cuda, random.getstate(), of_numpy))
    return {"rng": first[0], "cuda_rng": first[1], "host_rng": first[2:], "other_ranks": others}


def restore_random_state(state: Mapping[str, Any], ranks: Ranks, seed: int) -> None:
    """Bring back this process's generators; one that was not there when the checkpoint was written is seeded."""
    states = [(state["rng"], state["cuda_rng"], *state.get("host_rng", ())), *state.get("other_ranks", [])]
    if ranks.rank >= len(states):
        return seed_rank(seed, ranks.rank, state["step"])
    on_cpu, on_cuda, *of_host = states[ranks.rank]
    torch.set_rng_state(on_cpu)
    if of_host:  # not in checkpoints of earlier versions
        random.setstate(of_host[0])
        np.random.set_state(of_host[1])
    if torch.cuda.is_available() and len(on_cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(on_cuda)
    return None
