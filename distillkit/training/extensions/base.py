"""What a step extension is, and how those of a recipe are built."""

from __future__ import annotations

from abc import ABC
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

from ...errors import DistillkitError, RecipeError
from ...hooks.components import Component
from ...hooks.loader import Plugins
from ...model.adapters import CodecAdapter
from ...recipe.recipe import Recipe


@final
@dataclass(frozen=True)
class Trained:
    """What an extension is given when it is built.

    Attributes:
        codec: the one to train; on the CPU, with its initial weights.
        teacher: the trained teacher, for an extension with `needs_teacher`.
        num_steps: steps of the whole run.
        crop: side of the training crops in pixels.
    """

    codec: CodecAdapter
    teacher: CodecAdapter | None
    num_steps: int
    crop: int


class StepExtension(Component, ABC):
    """Acts around the optimiser's step. Built as `Extension(config, trained)`; the loop calls it directly.

    Where several processes train, each has its own extension, which sees the same gradients and weights as the others
    and must do the same; the first one's state is kept.

    Attributes:
        codec: the codec that is trained; an extension that trains another one instead of `trained.codec` sets it, and
            is first in the recipe.
        needs_teacher: whether the recipe must name a teacher for it.
    """

    needs_teacher: ClassVar[bool] = False

    def __init__(self, config: Any, trained: Trained) -> None:
        self.config = config
        self.codec = trained.codec

    def after_backward(self, step: int) -> None:
        """Look at the gradients, or change them, before they are clipped.

        They are complete: of the whole batch, over all parts into which `accumulate` cut it and all processes.

        Args:
            step: of the run, counted from 0.
        """

    def after_step(self, step: int) -> None:
        """Look at the weights that the optimiser's step left, or change them.

        Args:
            step: of the run, counted from 0.
        """

    @contextmanager
    def as_saved(self, codec: CodecAdapter) -> Generator[CodecAdapter]:
        """Yield the codec that is validated, shown to observers and saved; undo what was done to `codec` afterwards.

        Args:
            codec: the one that would be saved without this extension.
        """
        yield codec

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as tensors, numbers and text in dicts and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; tensors are on the CPU."""


@final
class Extensions:
    """The step extensions of a run, in the recipe's order.

    Attributes:
        codec: that is trained: the run's own, or the one that the first extension puts in its place.
    """

    def __init__(self, extensions: Mapping[str, StepExtension], codec: CodecAdapter) -> None:
        self._extensions, self.codec = dict(extensions), codec

    def after_backward(self, step: int) -> None:
        """Call each."""
        for extension in self._extensions.values():
            extension.after_backward(step)

    def after_step(self, step: int) -> None:
        """Call each."""
        for extension in self._extensions.values():
            extension.after_step(step)

    @contextmanager
    def as_saved(self) -> Generator[CodecAdapter]:
        """Yield the codec that is validated, shown to observers and saved: the last extension decides first."""
        with ExitStack() as stack:
            codec = self.codec
            for extension in reversed(self._extensions.values()):
                codec = stack.enter_context(extension.as_saved(codec))
            yield codec

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each, by name."""
        return {name: extension.state_dict() for name, extension in self._extensions.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of each.

        Raises:
            KeyError: one of them has no state there.
        """
        for name, extension in self._extensions.items():
            extension.load_state_dict(state[name])


def build_extensions(recipe: Recipe, plugins: Plugins, codec: CodecAdapter, teacher: CodecAdapter | None) -> Extensions:
    """Build the extensions of a resolved recipe around the codec of its run.

    Raises:
        DistillkitError: one does not fit.
    """
    built: dict[str, StepExtension] = {}
    for name, options in recipe.extensions.items():
        where = f"recipe extensions.{name}"
        extension_class, config = plugins.configure("extension", name, options, where)
        try:
            extension: StepExtension = extension_class(
                config, Trained(codec, teacher, recipe.num_steps, recipe.data.crop)
            )
        except DistillkitError as error:
            raise type(error)(f"{where}: {error}") from None
        except ValueError as error:
            raise RecipeError(f"{where}: {error}") from None
        if extension.codec is not codec and built:
            raise RecipeError(f"{where}: it replaces the codec that is trained; put it before {', '.join(built)}.")
        built[name], codec = extension, extension.codec
    return Extensions(built, codec)
