"""What the teacher gives a training step: features of the taps that are wanted, from disk or by running it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor

from .compiled import CompiledParts
from .distributed import Ranks
from .recipe import Recipe
from .sampled_taps import tap_and_stride
from .setup import Setup
from .teacher_cache import TeacherCache


@final
class Teacher:
    """The frozen teacher of a run, which runs only if something is wanted that is not on disk."""

    def __init__(
        self,
        setup: Setup,
        recipe: Recipe,
        ranks: Ranks,
        bf16: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Move the teacher to its device, and open the cache if the recipe has one.

        Raises:
            TrainingError: the cache would not fit on the disk.
        """
        self._setup, self._autocast = setup, autocast
        self._cache: TeacherCache | None = None
        self._compiled: CompiledParts | None = None
        if setup.pair is None:
            return
        setup.pair.teacher.module.to(ranks.device)
        if recipe.compile_teacher:
            self._compiled = CompiledParts(setup.pair.teacher.module, setup.pair.teacher_modules)
            setup.notes.append(f"teacher: {self._compiled.num_parts} parts are compiled when they first run")
        if recipe.teacher_cache is None:
            return
        modes = recipe.teacher_cache.taps
        paths = {role: path for role, path in setup.pair.teacher_paths.items() if modes.get(role, "cache") == "cache"}
        # Kernels round by device, and on a CPU by what it can do: features of another machine are not found.
        processor = (
            torch.cuda.get_device_name() if ranks.device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        )
        about = [
            setup.teacher_fingerprint,
            "bf16" if bf16 else "fp32",
            processor,
            platform.machine(),
            torch.__version__,
            *(["compiled"] if recipe.compile_teacher else []),
        ]
        self._cache = TeacherCache(recipe.teacher_cache.folder, about, paths)
        if ranks.is_first:
            setup.notes.append(self._cache.check_room(self._num_bytes(recipe, ranks.device)))

    def features(self, images: Tensor, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the teacher's features, by role, that the loss terms with these weights need."""
        if not weights or self._setup.pair is None:
            return {}
        roles = self._roles(weights)
        cache = self._cache
        cached = self._cached(roles)
        if cache is None or not cached:
            return self._run(images, roles)
        key = cache.key(images)
        stored = cache.read(key, cached, images.device)
        live = roles if stored is None else [role for role in roles if role not in stored]
        features = self._run(images, live) if live else {}
        if stored is None:
            cache.add(key, {role: features[role] for role in cached})
        return {**features, **(stored or {})}

    def close(self) -> None:
        """Put on disk what is to be stored."""
        if self._cache is not None:
            self._cache.flush()

    def _roles(self, terms: Collection[str]) -> list[str]:
        return sorted(set().union(*(self._setup.task.term(name).required_taps() for name in terms)))

    def _cached(self, roles: Collection[str]) -> list[str]:
        paths = self._cache.paths if self._cache is not None else {}
        return [role for role in roles if tap_and_stride(role)[0] in paths]

    def _run(self, images: Tensor, roles: Collection[str]) -> dict[str, Tensor]:
        assert self._setup.pair is not None
        with self._autocast(), self._compiled.active() if self._compiled else nullcontext():
            return self._setup.pair.run_teacher(images, roles)

    def _num_bytes(self, recipe: Recipe, device: torch.device) -> int:
        """Return the size of all features that this run will ask for, by the types and shapes of one crop's."""
        assert self._cache is not None
        total, sizes = 0, dict[str, int]()
        crop = torch.zeros(1, 3, recipe.data.crop, recipe.data.crop, device=device)
        for phase in self._setup.timeline.phases:
            for weights, num_steps in phase.stretches():
                wanted = self._cached(self._roles(weights))
                if missing := [role for role in wanted if role not in sizes]:
                    sizes |= {role: tensor.nbytes for role, tensor in self._run(crop, missing).items()}
                total += num_steps * recipe.data.batch_size * sum(sizes[role] for role in wanted)
        return total
