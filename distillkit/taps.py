"""Feature taps: find them by role, capture what passes, and stop the teacher after the last one needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from .adapters import CodecAdapter, CodecOutput
from .components import Component
from .errors import TapError, did_you_mean
from .sampled_taps import sample, tap_and_stride
from .tap_points import Tap, as_map, find_method, listening


class TapShape(NamedTuple):
    """Size of a tap's feature map for the probe's image."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class TapShapes:
    """The taps that both sides have, by role, with their shapes for an image of the training crops' size."""

    student: Mapping[str, TapShape]
    teacher: Mapping[str, TapShape]


class TracedModule(NamedTuple):
    """A module that ran in a probe: its path, its class's name, and its output's shape (C, H, W)."""

    path: str
    type_name: str
    shape: TapShape


class TapProvider(Component, ABC):
    """Finds the taps of a codec by role, whatever the codec's own names. Built as `Provider(config)`.

    Roles are `analysis.1/R` and `synthesis.1/R` (the output of the stage of the analysis or synthesis transform whose
    feature maps have 1/R of the image's height), `latent` (y before quantisation) and `reconstruction`; a provider may
    add others.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def find(self, trace: Sequence[TracedModule], image_size: tuple[int, int]) -> dict[str, str]:
        """Return role -> module path.

        Args:
            trace: every module of the codec that gave one feature map, in the order in which they finished.
            image_size: height and width of the probe's image in pixels.
        """


def trace_modules(codec: CodecAdapter, images: Tensor) -> list[TracedModule]:
    """Run the codec once in eval mode and return every module that gave one feature map, in finishing order.

    Tokens, shape (B, H * W, C), count as a map, see `as_map`.
    """
    trace: list[TracedModule] = []
    image_size = (images.shape[2], images.shape[3])

    def record(path: str, module: nn.Module) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            features = as_map(output, image_size) if isinstance(output, Tensor) else None
            if features is not None:
                trace.append(TracedModule(path, type(module).__name__, TapShape(*features.shape[1:])))

        return hook

    handles = [m.register_forward_hook(record(path, m)) for path, m in codec.module.named_modules() if path]
    try:
        with _eval_mode(codec.module), torch.no_grad():
            codec.forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return trace


class _StopForward(Exception):  # noqa: N818 - control flow, not an error
    pass


class _Capture(NamedTuple):
    features: Tensor
    version: int


@final
class TapBank:
    """Captures the outputs of some of a codec's modules, and makes sure that each one fired and is still intact.

    An activation that works in place can overwrite what a tap holds after it was captured. The probe finds such taps,
    and they are copied from then on.
    """

    def __init__(self, codec: CodecAdapter, taps: Mapping[str, str | Tap], side: str) -> None:
        """Hook the modules.

        Args:
            codec: the codec to listen to.
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
        self._captured: dict[str, _Capture] = {}
        self._copied: set[str] = set()
        self._methods: dict[str, tuple[nn.Module, str]] = {}
        modules = dict(codec.module.named_modules())
        for role, tap in self.taps.items():
            if tap.path in modules:
                modules[tap.path].register_forward_hook(lambda _, __, output, role=role: self._hear(role, output))
            elif method := find_method(codec.module, tap.path):
                self._methods[role] = method
            else:
                hint = did_you_mean(tap.path, modules)
                raise TapError(f"tap '{role}': no module or method '{tap.path}' in {self.name}.{hint}")

    def _hear(self, role: str, output: Any) -> None:
        if role not in self._wanted:
            return
        tap = self.taps[role]
        try:
            features = tap.read(output) if tap.read else output
        except Exception as error:
            raise TapError(
                f"tap '{role}': its `read` cannot make features of what '{tap.path}' of {self.name} returned, a "
                f"{type(output).__name__} ({type(error).__name__}: {error}). Correct it."
            ) from error
        if not isinstance(features, Tensor):
            raise TapError(
                f"tap '{role}': expected '{tap.path}' of {self.name} to return one tensor, got "
                f"{type(features).__name__}. Tap a module inside it, or give a distillkit.Tap with `read`."
            )
        feature_map = as_map(features, self._image_size)
        if feature_map is None:
            raise TapError(
                f"tap '{role}': expected features of shape (B, C, H, W), or tokens of shape (B, H * W, C), from "
                f"'{tap.path}' of {self.name}, got {tuple(features.shape)}. Give a distillkit.Tap with `read`."
            )
        if role in self._captured:
            raise TapError(
                f"tap '{role}': '{tap.path}' of {self.name} ran twice in one forward pass, so it is not clear which "
                "output is meant. Tap one that runs once."
            )
        feature_map = feature_map.clone() if role in self._copied else feature_map
        self._captured[role] = _Capture(feature_map, feature_map._version)
        if self._stop_early and len(self._captured) == len(self._wanted):
            raise _StopForward

    def run(
        self, images: Tensor, roles: Collection[str], stop_early: bool = False
    ) -> tuple[CodecOutput | None, dict[str, Tensor]]:
        """Run the codec and return its output and the features of the taps asked for.

        Args:
            images: shape (B, 3, H, W), range [0, 1].
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
        for role in taps:
            if role not in captured:
                raise TapError(
                    f"tap '{role}': '{self.taps[role].path}' of {self.name} did not run in the forward pass. "
                    "Its features would be missing from the loss; tap a module that runs."
                )
            if captured[role].features._version != captured[role].version:
                raise TapError(
                    f"tap '{role}': the output of '{self.taps[role].path}' of {self.name} was overwritten in place "
                    "after it was captured, which the probe had not seen. Tap the activation behind it instead."
                )
        places = {role: tap_and_stride(role) for role in roles}
        return output, {role: sample(captured[tap].features, stride) for role, (tap, stride) in places.items()}

    def probe(self, images: Tensor) -> tuple[CodecOutput, dict[str, TapShape]]:
        """Run every tap once in eval mode; return the output and each tap's shape, and note which need copying."""
        with _eval_mode(self.codec.module), torch.no_grad():
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
    def copied(self) -> frozenset[str]:
        """Roles whose features are copied because something overwrites them in place."""
        return frozenset(self._copied)

    def _listen(self, images: Tensor, roles: Collection[str]) -> CodecOutput:
        self._captured, self._wanted = {}, frozenset(roles)
        self._image_size = (images.shape[2], images.shape[3])
        try:
            with ExitStack() as stack:
                for role in self._wanted & self._methods.keys():
                    stack.enter_context(
                        listening(*self._methods[role], lambda output, role=role: self._hear(role, output))
                    )
                return self.codec.forward(images)
        finally:
            self._wanted = frozenset()

    def _find_overwritten(self, images: Tensor) -> set[str]:
        found: set[str] = set()
        self._stop_early = False
        for role in set(self.taps) - self._copied:
            self._listen(images, [role])
            capture = self._captured.get(role)
            if capture is not None and capture.features._version != capture.version:
                found.add(role)
        self._captured = {}
        return found

    def _check_known(self, roles: Collection[str]) -> None:
        for role in roles:
            if role not in self.taps:
                hint = did_you_mean(role, self.taps)
                known = ", ".join(sorted(self.taps))
                raise TapError(f"tap '{role}': no tap '{role}' in {self.name}; it has {known}.{hint}")


@contextmanager
def _eval_mode(module: nn.Module) -> Generator[None]:
    was_training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, training in was_training.items():
            m.training = training
