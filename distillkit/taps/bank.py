"""Feature taps: capture what passes, and stop the teacher after the last one needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from ..errors import TapError, did_you_mean
from ..model.adapters import CodecAdapter, CodecOutput
from .points import Tap, as_map, eval_mode, find_method, first_argument, listening
from .sampled import sample, tap_and_stride


class TapShape(NamedTuple):
    """Size of a tap's feature map for the probe's image."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class TapShapes:
    """The taps that both sides have, by role, with their shapes for an image of the training crops' size.

    Attributes:
        student: of the student's taps.
        teacher: of the teacher's.
        student_groups: for taps that are lists of tensors (a latent coded in groups of channels), the channels of each;
            a loss term receives the list as one map, its tensors one after the other along the channels.
        teacher_groups: likewise.
    """

    student: Mapping[str, TapShape]
    teacher: Mapping[str, TapShape]
    student_groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    teacher_groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class TapReport:
    """What the probe of a pair found: shapes of the shared taps, and the taps that only one side has."""

    shapes: TapShapes
    only_student: frozenset[str]
    only_teacher: frozenset[str]
    copied: frozenset[str]


class _StopForward(Exception):  # noqa: N818 - control flow, not an error
    pass


class _Capture(NamedTuple):
    maps: list[Tensor]
    versions: list[int]

    @property
    def overwritten(self) -> bool:
        return any(each._version != version for each, version in zip(self.maps, self.versions, strict=True))


@final
class TapBank:
    """Captures the outputs of some of a codec's modules, and makes sure that each one fired and is still intact.

    An activation that works in place can overwrite what a tap holds after it was captured. The probe finds such taps,
    and they are copied from then on.
    """

    def __init__(self, codec: CodecAdapter, taps: Mapping[str, str | Tap], side: str) -> None:
        """Hook the modules.

        Args:
            codec: the codec whose features are captured.
            taps: role -> where its features come from; a string is the path of a module or method.
            side: "student" or "teacher", for messages.

        Raises:
            TapError: the codec has no module or method of that path.
        """
        self.codec = codec
        self.name = f"{side} {type(codec.module).__name__}"
        self.taps = {role: tap if isinstance(tap, Tap) else Tap(tap) for role, tap in taps.items()}
        self._wanted: frozenset[str] = frozenset()
        self._stop_early = False
        self._image_size = (0, 0)
        self._captured: dict[tuple[str, str], _Capture] = {}  # by role and path
        self._copied: set[str] = set()
        self._groups: dict[str, tuple[int, ...]] = {}
        self._methods: dict[tuple[str, str], tuple[nn.Module, str]] = {}
        modules = dict(codec.module.named_modules())
        for role, path in ((role, path) for role, tap in self.taps.items() for path in tap.paths):
            if path in modules and self.taps[role].takes:
                modules[path].register_forward_pre_hook(
                    lambda _, args, kwargs, role=role, path=path: self._hear(role, path, first_argument(args, kwargs)),
                    with_kwargs=True,
                )
            elif path in modules:
                modules[path].register_forward_hook(
                    lambda _, __, output, role=role, path=path: self._hear(role, path, output)
                )
            elif method := find_method(codec.module, path):
                self._methods[role, path] = method
            else:
                hint = did_you_mean(path, modules)
                raise TapError(f"tap '{role}': no module or method '{path}' in {self.name}.{hint}")

    def _hear(self, role: str, path: str, output: Any) -> None:
        if role not in self._wanted:
            return
        read = self.taps[role].read
        try:
            features = read(output) if read else output
        except Exception as error:
            raise TapError(
                f"tap '{role}': its `read` cannot make features of what '{path}' of {self.name} returned, a "
                f"{type(output).__name__} ({type(error).__name__}: {error}). Correct it."
            ) from error
        maps = [self._map(role, path, each) for each in (features if isinstance(features, list) else [features])]
        if not maps:
            raise TapError(f"tap '{role}': '{path}' of {self.name} returned an empty list. Tap another module.")
        if (role, path) in self._captured:
            raise TapError(
                f"tap '{role}': '{path}' of {self.name} ran twice in one forward pass, so it is not clear which "
                "output is meant. Tap one that runs once."
            )
        maps = [each.clone() for each in maps] if role in self._copied else maps
        self._captured[role, path] = _Capture(maps, [each._version for each in maps])
        if self._stop_early and len(self._captured) == sum(len(self.taps[role].paths) for role in self._wanted):
            raise _StopForward

    def _map(self, role: str, path: str, features: Any) -> Tensor:
        if not isinstance(features, Tensor):
            raise TapError(
                f"tap '{role}': expected '{path}' of {self.name} to return one tensor, or a list of them, got "
                f"{type(features).__name__}. Tap a module inside it, or give a distillkit.Tap with `read`."
            )
        feature_map = as_map(features, self._image_size)
        if feature_map is None:
            raise TapError(
                f"tap '{role}': expected features of shape (B, C, H, W), or tokens of shape (B, H * W, C), from "
                f"'{path}' of {self.name}, got {tuple(features.shape)}. Give a distillkit.Tap with `read`."
            )
        return feature_map

    def run(
        self, images: Tensor, roles: Collection[str], stop_early: bool = False
    ) -> tuple[CodecOutput | None, dict[str, Tensor]]:
        """Run the codec and return its output and the features of the taps asked for.

        Args:
            images: shape (B, C, H, W), range [0, 1].
            roles: taps to capture, some of them perhaps sampled, see `distillkit.sampled`.
            stop_early: end the forward pass at the last tap; the output is then None.

        Raises:
            TapError: a tap is unknown, did not fire, or was overwritten after it was captured.
        """
        taps = {tap_and_stride(role)[0] for role in roles}
        self._check_known(taps)
        self._stop_early = stop_early and bool(taps)
        output: CodecOutput | None = None
        with suppress(_StopForward):
            output = self._listen(images, taps)
        captured, self._captured = self._captured, {}
        features = {role: self._together(role, captured) for role in taps}
        places = {role: tap_and_stride(role) for role in roles}
        return output, {role: sample(features[tap], stride) for role, (tap, stride) in places.items()}

    def _together(self, role: str, captured: Mapping[tuple[str, str], _Capture]) -> Tensor:
        """Return what a tap captured as one map; the tensors of a list come one after the other along the channels."""
        maps: list[Tensor] = []
        for path in self.taps[role].paths:
            capture = captured.get((role, path))
            if capture is None:
                raise TapError(
                    f"tap '{role}': '{path}' of {self.name} did not run in the forward pass. "
                    "Its features would be missing from the loss; tap a module that runs."
                )
            if capture.overwritten:
                raise TapError(
                    f"tap '{role}': the output of '{path}' of {self.name} was overwritten in place "
                    "after it was captured, which the probe had not seen. Tap the activation after it instead."
                )
            maps += capture.maps
        if len(maps) == 1:
            return maps[0]
        if len({each.shape[2:] for each in maps}) > 1:
            sizes = ", ".join(f"{each.shape[2]}x{each.shape[3]}" for each in maps)
            raise TapError(
                f"tap '{role}': expected tensors of one resolution from {self.name}, got {sizes}. Give each a tap of "
                "its own."
            )
        self._groups[role] = tuple(each.shape[1] for each in maps)
        return torch.cat(maps, dim=1)

    def probe(self, images: Tensor) -> tuple[CodecOutput, dict[str, TapShape]]:
        """Run every tap once in eval mode; return the output and each tap's shape, and note which need copying."""
        with eval_mode(self.codec.module), torch.no_grad():
            while True:
                try:
                    output, features = self.run(images, list(self.taps))
                    break
                except TapError:
                    overwritten = self._find_overwritten(images)
                    if not overwritten:
                        raise
                    self._copied |= overwritten
        assert output is not None
        return output, {role: TapShape(*tensor.shape[1:]) for role, tensor in features.items()}

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Role -> the channels of each tensor, for the taps that gave a list when they last ran."""
        return self._groups

    @property
    def copied(self) -> frozenset[str]:
        """Roles whose features are copied because something overwrites them in place."""
        return frozenset(self._copied)

    def _listen(self, images: Tensor, roles: Collection[str]) -> CodecOutput:
        self._captured, self._wanted = {}, frozenset(roles)
        self._image_size = (images.shape[2], images.shape[3])
        try:
            with ExitStack() as stack:
                for (role, path), method in self._methods.items():
                    if role in self._wanted:
                        stack.enter_context(listening(*method, partial(self._hear, role, path), self.taps[role].takes))
                return self.codec.forward(images)
        finally:
            self._wanted = frozenset()

    def _find_overwritten(self, images: Tensor) -> set[str]:
        found: set[str] = set()
        self._stop_early = False
        for role in set(self.taps) - self._copied:
            self._listen(images, [role])
            if any(capture.overwritten for capture in self._captured.values()):
                found.add(role)
        self._captured = {}
        return found

    def _check_known(self, roles: Collection[str]) -> None:
        for role in roles:
            if role not in self.taps:
                hint = did_you_mean(role, self.taps)
                known = ", ".join(sorted(self.taps))
                raise TapError(f"tap '{role}': no tap '{role}' in {self.name}; it has {known}.{hint}")
