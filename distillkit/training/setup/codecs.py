"""The codecs of a run: the one that is trained, with its initial weights, and its teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from ...data.crops import CALIBRATION_SEED, CropDataset, batches
from ...data.samples import RGB, Samples
from ...errors import DistillkitError, RecipeError
from ...hooks.loader import Plugins
from ...model.adapters import CodecAdapter, as_codec, fingerprint
from ...model.by_rate import NearestRate
from ...model.conditioned import MIDDLE, ConditionedAdapter, FixedQuality
from ...model.file import TrainedModel, load_model
from ...model.initialise import inherit_weights
from ...model.lmbda import Lmbda
from ...model.weights import is_foreign
from ...recipe.recipe import TEACHER, TOGETHER, Recipe
from ...taps.pair import CodecPair
from ...taps.points import Tap
from ..extensions.base import Extensions, build_extensions
from ..random_state import seed_everything
from ..teaching.qualities import Rates, check_rates, check_teacher
from .teachers import default_teacher, teacher_of_terms, teachers_wanted

Taps = Mapping[str, str | Tap]
_START_PIXELS = 2**21  # of the crops to which a pair may fit a student before its first step


@final
@dataclass(frozen=True)
class TeacherCodec:
    """A trained teacher.

    Attributes:
        codec: it.
        fingerprint: hash of its weights.
        taps: those that its own pair, perhaps another one, names for it.
        lmbda: what it was trained for; None if that is not known.
    """

    codec: CodecAdapter
    fingerprint: str
    taps: Taps | None
    lmbda: Lmbda | None


@final
@dataclass(frozen=True)
class Codecs:
    """What `build_codecs` builds.

    Attributes:
        codec: the codec that is trained.
        taps: those that its pair names for it.
        options: of its pair, for its file.
        teachers: by name.
        extensions: what acts around the optimiser's step.
        notes: what the user should know of the initial weights.
    """

    codec: CodecAdapter
    taps: Taps | None
    options: dict[str, Any]
    teachers: dict[str, TeacherCodec]
    extensions: Extensions
    notes: list[str]


@final
@dataclass(frozen=True)
class TrainedCodec:
    """The codec that is trained, before the others are built.

    Attributes:
        pair: its pair.
        codec: it, with random weights.
        options: of its pair, for its file.
    """

    pair: CodecPair
    codec: CodecAdapter
    options: dict[str, Any]


def samples_of(recipe: Recipe, plugins: Plugins) -> Samples:
    """Return the samples of the pictures that a recipe's codec codes; it is built for that.

    One that cannot be built yet, since it needs the file of a teacher that is not trained, is taken for one of RGB.
    """
    try:
        return build_trained(recipe, plugins).codec.samples
    except DistillkitError:
        return RGB


def build_trained(recipe: Recipe, plugins: Plugins) -> TrainedCodec:
    """Build the codec that a recipe trains; its weights depend only on the seed.

    Raises:
        DistillkitError: it cannot be built, or does not suit the run.
    """
    pair_class, config = plugins.configure("pair", recipe.pair.name, recipe.pair.options, "recipe pair")
    pair: CodecPair = pair_class(config)
    seed_everything(recipe.seed)
    codec = as_codec(pair.build_student() if recipe.trains == "student" else pair.build_teacher())
    _check_crop(codec, recipe)
    check_rates(codec, recipe)
    return TrainedCodec(pair, codec, pair.options_of(recipe.trains, codec.module))


def build_codecs(recipe: Recipe, plugins: Plugins, trained: TrainedCodec, dataset: CropDataset) -> Codecs:
    """Build the other codecs of a resolved recipe; `dataset` holds its training crops.

    Initial weights depend only on the seed: the student of a run with distillation starts where the student of a run
    without it does.

    Raises:
        DistillkitError: one cannot be built, or does not suit the run.
    """
    pair, codec = trained.pair, trained.codec
    source: CodecAdapter | None = None
    if isinstance(recipe.initial_weights, Path):
        path = recipe.initial_weights
        is_own = not is_foreign(path)
        source = load_model(path, plugins).codec if is_own else as_codec(pair.with_weights(recipe.trains, path))
    teachers = {name: _teacher(name, recipe, pair, plugins) for name in teachers_wanted(recipe, plugins)}
    _check_lmbdas(recipe, teachers, plugins)
    first = teachers.get(default_teacher(recipe, plugins) or "")
    if recipe.initial_weights == "teacher" and first is not None:
        source = first.codec
    notes = _inherit(codec, source, dataset, recipe)
    if recipe.initial_weights == "teacher" and first is not None and _start(pair, codec, first, dataset, recipe):
        notes = [f"{note}; then the pair fitted layers to what the teacher computes" for note in notes]
    extensions = build_extensions(recipe, plugins, codec, first.codec if first else None)
    taps = pair.student_taps()
    if extensions.codec is not codec and first is not None:  # an extension trains a copy of the teacher
        taps = first.taps
    return Codecs(extensions.codec, taps, trained.options, teachers, extensions, notes)


def _teacher(name: str, recipe: Recipe, pair: CodecPair, plugins: Plugins) -> TeacherCodec:
    if name == TOGETHER:
        models = {each: load_model(path, plugins) for each, path in recipe.teachers.items()}
        together, model = NearestRate(models), next(iter(models.values()))
        return TeacherCodec(together, together.fingerprint, _taps_of(model, TOGETHER, plugins), together.lmbda)
    path = recipe.teacher if name == TEACHER else recipe.teachers[name]
    if path is None:
        teacher = as_codec(pair.build_teacher())
        return TeacherCodec(teacher, fingerprint(teacher.module), pair.teacher_taps(), pair.teacher_lmbda)
    model = load_model(path, plugins)
    return TeacherCodec(model.codec, model.fingerprint, _taps_of(model, _key(name), plugins), model.lmbda)


def _taps_of(model: TrainedModel, key: str, plugins: Plugins) -> Taps | None:
    own_class, config = plugins.configure("pair", model.pair, model.options, f"recipe {key}")
    own: CodecPair = own_class(config)
    return own.teacher_taps() if model.part == "teacher" else own.student_taps()


def _check_lmbdas(recipe: Recipe, teachers: Mapping[str, TeacherCodec], plugins: Plugins) -> None:
    for label, name in teacher_of_terms(recipe, plugins).items():
        if plugins.configure_loss(label, recipe.losses[label])[0].needs_own_lmbda:
            own = name == TEACHER and recipe.teacher is None
            where = f"pair {recipe.pair.name}" if own else f"recipe {_key(name)}"
            check_teacher(where, teachers[name].lmbda, recipe, label)


def _key(teacher: str) -> str:
    return teacher if teacher in (TEACHER, TOGETHER) else f"teachers.{teacher}"


def _check_crop(codec: CodecAdapter, recipe: Recipe) -> None:
    if recipe.data.crop % codec.stride:
        raise RecipeError(
            f"recipe data.crop: expected a multiple of {codec.stride}, got {recipe.data.crop}; change it."
        )


@torch.no_grad()
def _inherit(codec: CodecAdapter, source: CodecAdapter | None, dataset: CropDataset, recipe: Recipe) -> list[str]:
    """Start `codec` from the weights of `source`, if there is one; return a note on it."""
    if source is None:
        return []
    _check_crop(source, recipe)
    if source.samples != codec.samples:
        raise RecipeError(
            f"recipe initial_weights: expected a codec of {codec.samples}, got one of {source.samples}; name another."
        )
    source.module.eval()
    bits = torch.zeros(0)  # that the source spends on each channel of its latent
    for images in batches(dataset.with_seed(recipe.seed + CALIBRATION_SEED), recipe.data.batch_size, 0, 8):
        likelihoods = source.forward(images.contiguous()).likelihoods
        if "y" in likelihoods:
            bits = bits.new_zeros(likelihoods["y"].shape[1]) if not len(bits) else bits
            bits = bits - likelihoods["y"].log2().sum(dim=(0, 2, 3))
    return [str(inherit_weights(codec.module, source.module, bits))]


@torch.no_grad()
def _start(pair: CodecPair, codec: CodecAdapter, teacher: TeacherCodec, dataset: CropDataset, recipe: Recipe) -> bool:
    """Let the pair improve a student that was cut out of its teacher; return whether it did."""
    conditioned = isinstance(codec, ConditionedAdapter)
    rates = Rates(recipe.lmbda, {TEACHER: teacher.lmbda})
    quality = rates.for_teacher(
        TEACHER, torch.full((1,), MIDDLE) if conditioned else None, torch.zeros(1, 1), teacher.codec
    )
    student = FixedQuality(codec, MIDDLE) if conditioned else codec
    source = teacher.codec
    if isinstance(source, ConditionedAdapter):
        source = FixedQuality(source, MIDDLE if quality is None else float(quality))
    number = max(_START_PIXELS // (recipe.data.batch_size * recipe.data.crop**2), 1)
    crops = batches(dataset.with_seed(recipe.seed + CALIBRATION_SEED), recipe.data.batch_size, 0, number)
    training = codec.module.training
    codec.module.eval()
    teacher.codec.module.eval()
    changed = pair.start_student(student, source, (each.contiguous() for each in crops))
    codec.module.train(training)
    return changed
