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
    """Seed for a run's steps from `step` on; each process draws noise of its own."""
    seed_everything(seed + 1_000_003 * rank + 7_919 * step)


def random_state(ranks: Ranks) -> dict[str, Any]:
    """Return torch's generators of all processes, as entries of a checkpoint."""
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    first, *others = ranks.gather((torch.get_rng_state(), on_cuda))
    return {"rng": first[0], "cuda_rng": first[1], "other_ranks": others}


def restore_random_state(state: Mapping[str, Any], ranks: Ranks, seed: int) -> None:
    """Bring back this process's generators; one that was not there when the checkpoint was written is seeded."""
    states = [(state["rng"], state["cuda_rng"]), *state.get("other_ranks", [])]
    if ranks.rank >= len(states):
        return seed_rank(seed, ranks.rank, state["step"])
    on_cpu, on_cuda = states[ranks.rank]
    torch.set_rng_state(on_cpu)
    if torch.cuda.is_available() and len(on_cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(on_cuda)
    return None
