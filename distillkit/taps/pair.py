"""Pairs: what a plugin registers, and a teacher and a student made ready for one another."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, final, get_args, get_origin

import torch
from torch import Tensor, nn

from ..errors import PairError
from ..hooks.components import Component
from ..model.adapters import CodecAdapter, CodecOutput, as_codec
from ..model.lmbda import Lmbda
from ..model.sources import named_sources
from ..model.weights import load_weights
from .bank import TapBank, TapReport, TapShapes
from .forcing import latent_given
from .graft import run_grafted
from .orders import Offer, Order
from .points import Tap
from .provider import probe_image
from .rates import run_bank


class CodecPair(Component, ABC):
    """A teacher and a student that belong together. Built as `Pair(config)`; the networks are built on demand.

    Both may be modules with CompressAI's model API, or a `CodecAdapter` around anything else.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def pretrained_teacher(self) -> bool:
        """Whether `build_teacher` returns a teacher that is trained already."""
        return False

    @property
    def teacher_lmbda(self) -> Lmbda | None:
        """The trade-off, or the range of them, that a pretrained teacher was trained for, if that is known."""
        return None

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Return the options under which listings show the pair; by default every combination of listed choices."""
        if any(field.is_required() for field in cls.Config.model_fields.values()):
            return []
        choices = {
            name: get_args(field.annotation)
            for name, field in cls.Config.model_fields.items()
            if get_origin(field.annotation) is Literal
        }
        return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]

    @classmethod
    def students_to_order(cls, order: Order) -> Offer | None:
        """Return the students among which `distillkit fit` searches; None where sizes cannot be chosen."""
        return None

    @abstractmethod
    def build_teacher(self) -> nn.Module | CodecAdapter:
        """Return the teacher."""

    @abstractmethod
    def build_student(self) -> nn.Module | CodecAdapter:
        """Return a freshly initialised student."""

    def start_student(self, student: CodecAdapter, teacher: CodecAdapter, images: Iterable[Tensor]) -> bool:
        """Improve a student that was cut out of its teacher (`initial_weights = "teacher"`), in place.

        By default nothing is done. Both are in eval mode, at the quality of one trade-off; the teacher may be another
        pair's. `images` gives batches of crops, shape (B, C, H, W), range [0, 1]. Returns whether weights were changed.
        """
        return False

    def options_of(self, part: Literal["teacher", "student"], module: nn.Module) -> dict[str, Any]:
        """Return the options with which a trained codec's file is read; other ones where the pair's name other files.

        Args:
            part: which of the two codecs was trained.
            module: it.
        """
        return self.config.model_dump(mode="json")

    def with_weights(self, part: Literal["teacher", "student"], path: Path) -> nn.Module | CodecAdapter:
        """Return one of the codecs with weights from a file that distillkit did not write, such as a checkpoint.

        A run starts from them: what fits by name and shape is copied, and wider tensors are cut. By default the codec
        is built as it is, and the file's state dict has to be its own.

        Args:
            part: which of the two codecs.
            path: the file.

        Raises:
            PairError: the file cannot be read, or holds other weights.
        """
        codec = self.build_teacher() if part == "teacher" else self.build_student()
        load_weights(as_codec(codec).module, path)
        return codec

    def sources_of(self, part: Literal["teacher", "student"]) -> list[str]:
        """Return the options by which building a codec would open other files or the network.

        A trained model's file that has one is refused, for it may come from a stranger. By default these are all
        options that are a `Path`, are marked `Source`, or look like a path or an address, and all that make a teacher
        pretrained.

        Args:
            part: which of the two codecs.
        """
        pretrained = ["pretrained_teacher"] if part == "teacher" and self.pretrained_teacher else []
        return [*named_sources(self.config), *pretrained]

    def teacher_taps(self) -> Mapping[str, str | Tap] | None:
        """Return the teacher's taps, role -> path of a module or method, or `Tap`; None has them found by probing."""
        return None

    def student_taps(self) -> Mapping[str, str | Tap] | None:
        """Return the student's taps, role -> path of a module or method, or `Tap`; None has them found by probing."""
        return None


class TapPair(NamedTuple):
    """One tap's features on both sides, each of shape (B, C, H, W); the teacher's carry no gradient."""

    student: Tensor
    teacher: Tensor


@final
class TeachingPair:
    """A frozen teacher in eval mode and the student that it teaches, with the taps that both have.

    The teacher is not a submodule of anything that is trained: it never enters the student's state or optimiser.
    """

    def __init__(
        self,
        teacher: CodecAdapter,
        student: CodecAdapter,
        taps: tuple[Mapping[str, str | Tap], Mapping[str, str | Tap]],
    ):
        """Bind the two.

        Args:
            teacher: a trained codec; it is frozen here.
            student: the codec to be trained.
            taps: the teacher's and the student's taps, role -> path or `Tap`.

        Raises:
            PairError: the two share parameters, or code pictures of other samples.
        """
        if set(map(id, teacher.module.parameters())) & set(map(id, student.module.parameters())):
            raise PairError(
                "pair: expected a teacher and a student, got two that share parameters: a frozen teacher "
                "would freeze its student. Build new modules in build_teacher and build_student."
            )
        if teacher.samples != student.samples:
            raise PairError(
                f"pair: expected two codecs of the same pictures, got a teacher of {teacher.samples} and a student of "
                f"{student.samples}; pass the same distillkit.Samples to both adapters."
            )
        self.teacher, self.student = teacher, student
        self._report: TapReport | None = None
        teacher.module.requires_grad_(False).eval()
        self._teacher_bank = TapBank(teacher, taps[0], "teacher")
        self._student_bank = TapBank(student, taps[1], "student")

    def probe(self, image_size: tuple[int, int]) -> TapReport:
        """Run one image through both, and check that they fit.

        Args:
            image_size: height and width in pixels.

        Raises:
            PairError: the image size does not suit a codec, or latents or reconstructions cannot be matched.
        """
        for side, codec in (("teacher", self.teacher), ("student", self.student)):
            if image_size[0] % codec.stride or image_size[1] % codec.stride:
                raise PairError(
                    f"{side} {type(codec.module).__name__}: expected images whose sides are multiples of "
                    f"{codec.stride}, got {image_size[0]}x{image_size[1]}. Change the recipe's data.crop."
                )
        image = probe_image(image_size, self.student.samples, next(self.student.module.parameters()).device)
        student_output, student = self._student_bank.probe(image)
        teacher_output, teacher = self._teacher_bank.probe(image)
        if student_output.x_hat.shape != teacher_output.x_hat.shape:
            raise PairError(
                f"pair: expected reconstructions of one size, got {tuple(teacher_output.x_hat.shape)} from the teacher "
                f"and {tuple(student_output.x_hat.shape)} from the student. Choose codecs of equal output size."
            )
        if "latent" in student and "latent" in teacher:
            s, t = student["latent"], teacher["latent"]
            if (s.height, s.width) != (t.height, t.width):
                raise PairError(
                    f"pair: expected latents of one resolution, got {t.height}x{t.width} from the teacher and "
                    f"{s.height}x{s.width} from the student. Choose codecs of equal stride."
                )
        shared = sorted(set(student) & set(teacher))
        self._report = TapReport(
            TapShapes(
                {role: student[role] for role in shared},
                {role: teacher[role] for role in shared},
                dict(self._student_bank.groups),
                dict(self._teacher_bank.groups),
            ),
            frozenset(set(student) - set(teacher)),
            frozenset(set(teacher) - set(student)),
            self._student_bank.copied | self._teacher_bank.copied,
        )
        return self._report

    @property
    def report(self) -> TapReport:
        """What the last `probe` found.

        Raises:
            PairError: there was none.
        """
        if self._report is None:
            raise PairError("pair: not probed yet, so the shapes of its taps are not known. Call probe(image_size).")
        return self._report

    @property
    def teacher_paths(self) -> Mapping[str, str]:
        """The teacher's taps, role -> module path; a tap with a callable also names that."""
        taps = self._teacher_bank.taps
        return {
            role: " ".join([*tap.paths, *([f"{tap.read.__module__}.{tap.read.__qualname__}"] if tap.read else [])])
            for role, tap in taps.items()
        }

    def tapped(self, side: Literal["teacher", "student"]) -> frozenset[str]:
        """Return the paths of a side's modules and methods that are tapped."""
        bank = self._teacher_bank if side == "teacher" else self._student_bank
        return frozenset(path for tap in bank.taps.values() for path in tap.paths)

    def run_teacher(self, images: Tensor, roles: Collection[str], quality: Tensor | None = None) -> dict[str, Tensor]:
        """Return the teacher's features; its forward pass ends at the last tap asked for.

        Args:
            images: shape (B, C, H, W), range [0, 1].
            roles: taps to capture.
            quality: of each image, in [0, 1], shape (B,), for a teacher of many rates; else None.
        """
        return self._teach(images, roles, quality, stop_early=True)[1]

    def run_whole_teacher(
        self, images: Tensor, roles: Collection[str], quality: Tensor | None = None
    ) -> tuple[CodecOutput, dict[str, Tensor]]:
        """Return the teacher's output, too, for loss terms that need it; arguments as for `run_teacher`."""
        output, features = self._teach(images, roles, quality, stop_early=False)
        assert output is not None
        return output, features

    def _teach(
        self, images: Tensor, roles: Collection[str], quality: Tensor | None, stop_early: bool
    ) -> tuple[CodecOutput | None, dict[str, Tensor]]:
        self.teacher.module.eval()  # a parent's .train() reaches it
        with torch.no_grad():
            return run_bank(self._teacher_bank, images, roles, quality, stop_early)

    def graft(
        self, images: Tensor, stages: Collection[str], roles: Collection[str] = ()
    ) -> tuple[CodecOutput, dict[str, Tensor]]:
        """Return the output of the teacher with stages of the student in it, and the student's features.

        The teacher quantises as in training, so that gradient passes; its own weights are frozen, and stay as they are.

        Args:
            images: shape (B, C, H, W), range [0, 1].
            stages: paths of modules that both codecs have, such as `g_s`; each takes and returns what the other's does.
            roles: the student's taps to capture, all within the stages.

        Raises:
            PairError: a codec has no such stage, or has many rates.
        """
        return run_grafted(self.teacher, self._student_bank, images, stages, roles)

    def run_student(
        self, images: Tensor, teacher_taps: Mapping[str, Tensor], quality: Tensor | None = None
    ) -> tuple[CodecOutput, dict[str, TapPair]]:
        """Return the student's output, and its features beside the teacher's for the same roles."""
        output, features = self.run_student_alone(images, teacher_taps.keys(), quality)
        return output, {role: TapPair(features[role], teacher_taps[role]) for role in teacher_taps}

    def run_student_alone(
        self, images: Tensor, roles: Collection[str], quality: Tensor | None = None, latent: Tensor | None = None
    ) -> tuple[CodecOutput, dict[str, Tensor]]:
        """Return the student's output and features; see `run_teacher`. A given `latent` replaces its own."""
        with latent_given(self._student_bank, latent):
            output, features = run_bank(self._student_bank, images, roles, quality)
        assert output is not None
        return output, features
