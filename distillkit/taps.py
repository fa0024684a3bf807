"""Feature taps: find them by role, capture what passes, and stop the teacher after the last one needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from .adapters import CodecAdapter, CodecOutput
from .components import Component
from .errors import TapError, did_you_mean


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
    """Run the codec once in eval mode and return every module that gave one (B, C, H, W) tensor, in finishing order."""
    trace: list[TracedModule] = []

    def record(path: str, module: nn.Module) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                trace.append(TracedModule(path, type(module).__name__, TapShape(*output.shape[1:])))

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

    def __init__(self, codec: CodecAdapter, paths: Mapping[str, str], side: str) -> None:
        """Hook the modules.

        Args:
            codec: the codec to listen to.
            paths: role -> module path.
            side: "student" or "teacher", for messages.

        Raises:
            TapError: the codec has no module of that path.
        """
        self.codec = codec
        self.name = f"{side} {type(codec.module).__name__}"
        self.paths = dict(paths)
        self._wanted: frozenset[str] = frozenset()
        self._stop_early = False
        self._captured: dict[str, _Capture] = {}
        self._copied: set[str] = set()
        modules = dict(codec.module.named_modules())
        for role, path in self.paths.items():
            if path not in modules:
                hint = did_you_mean(path, modules)
                raise TapError(f"tap '{role}': no module '{path}' in {self.name}.{hint}")
            modules[path].register_forward_hook(self._hook(role))

    def _hook(self, role: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if role not in self._wanted:
                return
            if not isinstance(output, Tensor):
                raise TapError(
                    f"tap '{role}': expected module '{self.paths[role]}' of {self.name} to return one tensor, got "
                    f"{type(output).__name__}. Tap a module inside it."
                )
            if role in self._captured:
                raise TapError(
                    f"tap '{role}': module '{self.paths[role]}' of {self.name} ran twice in one forward pass, so it is "
                    "not clear which output is meant. Tap a module that runs once."
                )
            features = output.clone() if role in self._copied else output
            self._captured[role] = _Capture(features, features._version)
            if self._stop_early and len(self._captured) == len(self._wanted):
                raise _StopForward

        return hook

    def run(
        self, images: Tensor, roles: Collection[str], stop_early: bool = False
    ) -> tuple[CodecOutput | None, dict[str, Tensor]]:
        """Run the codec and return its output and the features of the taps asked for.

        Args:
            images: shape (B, 3, H, W), range [0, 1].
            roles: taps to capture.
            stop_early: end the forward pass at the last tap; the output is then None.

        Raises:
            TapError: a tap is unknown, did not fire, or was overwritten after it was captured.
        """
        self._check_known(roles)
        self._wanted, self._stop_early, self._captured = frozenset(roles), stop_early and bool(roles), {}
        output: CodecOutput | None = None
        try:
            output = self.codec.forward(images)
        except _StopForward:
            pass
        finally:
            captured, self._captured, self._wanted = self._captured, {}, frozenset()
        for role in roles:
            if role not in captured:
                raise TapError(
                    f"tap '{role}': module '{self.paths[role]}' of {self.name} did not run in the forward pass. "
                    "Its features would be missing from the loss; tap a module that runs."
                )
            if captured[role].features._version != captured[role].version:
                raise TapError(
                    f"tap '{role}': the output of module '{self.paths[role]}' of {self.name} was overwritten in place "
                    "after it was captured, which the probe had not seen. Tap the activation behind it instead."
                )
        return output, {role: captured[role].features for role in roles}

    def probe(self, images: Tensor) -> tuple[CodecOutput, dict[str, TapShape]]:
        """Run every tap once in eval mode; return the output and each tap's shape, and note which need copying."""
        with _eval_mode(self.codec.module), torch.no_grad():
            while True:
                try:
                    output, features = self.run(images, list(self.paths))
                    break
                except TapError:
                    overwritten = self._find_overwritten(images)
                    if not overwritten:
                        raise
                    self._copied |= overwritten
        assert output is not None
        shapes: dict[str, TapShape] = {}
        for role, tensor in features.items():
            if tensor.ndim != 4:
                raise TapError(
                    f"tap '{role}': expected features of shape (B, C, H, W) from module '{self.paths[role]}' of "
                    f"{self.name}, got {tuple(tensor.shape)}; tap another."
                )
            shapes[role] = TapShape(*tensor.shape[1:])
        return output, shapes

    @property
    def copied(self) -> frozenset[str]:
        """Roles whose features are copied because something overwrites them in place."""
        return frozenset(self._copied)

    def _find_overwritten(self, images: Tensor) -> set[str]:
        found: set[str] = set()
        for role in set(self.paths) - self._copied:
            self._wanted, self._stop_early, self._captured = frozenset([role]), False, {}
            self.codec.forward(images)
            capture = self._captured.get(role)
            if capture is not None and capture.features._version != capture.version:
                found.add(role)
        self._captured, self._wanted = {}, frozenset()
        return found

    def _check_known(self, roles: Collection[str]) -> None:
        for role in roles:
            if role not in self.paths:
                hint = did_you_mean(role, self.paths)
                known = ", ".join(sorted(self.paths))
                raise TapError(f"tap '{role}': no tap '{role}' in {self.name}; it has {known}.{hint}")


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    was_training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, training in was_training.items():
            m.training = training
