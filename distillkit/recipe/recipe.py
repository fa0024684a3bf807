"""What one run is: typed, validated, TOML in and out."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..errors import RecipeError
from ..hooks.components import validate

if TYPE_CHECKING:
    from ..hooks.loader import Plugins
    from ..taps.pair import CodecPair


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ComponentChoice(BaseModel):
    """A registered component by its full name; every other key is one of its options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The component's options as they stand in the recipe."""
        return dict(self.model_extra or {})


class DataSettings(_Settings):
    """The training images.

    Attributes:
        train: folder of images, searched recursively; in a file, relative to the recipe's folder.
        crop: side of the square training crops in pixels.
        batch_size: crops a step, over all processes.
        num_workers: processes that decode images; 0 decodes in the training process.
        cache_mib: decoded images are kept in memory up to this many MiB.
        hashes: whether the record by which a run that continues knows its images again (`data.json`) holds a hash of
            every file, which is read for it; without, name, size and date tell.
        bad_images: whether an image that cannot be used ends the run before it starts, or is left out.
        convert: take pictures that are not 8-bit RGB, too, see `read_image`; the run's notes count them.
        num_crops: different crops of the whole run, used again and again; left out, there are always new ones. A pair
            that keeps what it computes of a crop (`models.light`) then computes it once.
    """

    train: Path
    crop: PositiveInt = 256
    batch_size: PositiveInt = 8
    num_workers: NonNegativeInt = 0
    cache_mib: NonNegativeInt = 2048
    hashes: bool = False
    bad_images: Literal["refuse", "skip"] = "refuse"
    convert: bool = False
    num_crops: PositiveInt | None = None


class OptimizerSettings(_Settings):
    """How the weights move.

    Attributes:
        name: `adam`; `soap` (Vyas et al., 2024, arXiv 2409.11321) or `muon` (Jordan et al., 2024), which need far fewer
            steps; plain `sgd`.
        learning_rate: for the student and the loss terms' adapters, at its highest.
        aux_learning_rate: for the entropy bottlenecks' quantiles (Adam).
        clip_norm: largest norm of the gradient.
        rate_schedule: `constant`, or `cosine` down to 0 over the whole run; phases multiply it.
        warmup_steps: steps over which the learning rate rises linearly.
    """

    name: Literal["adam", "soap", "muon", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-4
    aux_learning_rate: PositiveFloat = 1e-3
    clip_norm: PositiveFloat = 1.0
    rate_schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0


class Recipe(_Settings):
    """One run: train the student of a pair (with or without a teacher), or its teacher.

    Attributes:
        trains: which of the pair's two codecs this run trains.
        pair: the pair, by name, with its options.
        teacher: file of the trained teacher (`model.safetensors` of its run), of this pair or another one; needed when
            there are losses.
        initial_weights: `random`, `teacher` (what fits of its weights, see `distillkit.model.initialise`), or the
            file of another trained model, of which the same is done.
        objective: what the codec is trained for, by name, with options.
        lmbda: trade-off of the rate-distortion cost: `lmbda` times the objective's distortion is in bits per pixel.
        num_steps: optimiser steps of the whole run.
        losses: distillation losses by name, each with its options; none trains without distillation.
        schedule: the phases, by name, with options.
        taps: how feature taps are found, by name, with options.
        data: the training images.
        optimizer: how the weights move.
        compile_teacher: whether the teacher's parts between the taps are compiled (`torch.compile`): minutes at the
            start of a run, for less time in each step; features differ by rounding.
        precision: `bf16` runs convolutions and products in bfloat16 where that is safe, `fp16` in float16, with
            gradients scaled to its narrow range; `auto` is `bf16` where the device computes in bfloat16 itself, for one
            that emulates it is many times slower, and `fp32` elsewhere.
        device: `cpu`, `cuda`, one GPU of several (`cuda:1`), or `mps`; `auto` takes a GPU where there is one. Each of
            several processes takes a GPU of its own.
        accumulate: parts into which each process cuts its share of a batch, one after the other, to save memory.
        on_divergence: what is done when a loss or a weight is not finite: `stop`, or `rollback` to the newest
            checkpoint and go on from there at half the learning rate, five times at most.
        seed: of initial weights, crops and quantisation noise.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
    """

    trains: Literal["student", "teacher"] = "student"
    pair: ComponentChoice
    teacher: Path | None = None
    initial_weights: Literal["random", "teacher"] | Path = "random"
    objective: ComponentChoice = ComponentChoice(name="core.mse")
    lmbda: PositiveFloat = 0.013
    num_steps: PositiveInt
    losses: dict[str, dict[str, Any]] = Field(default_factory=dict)
    schedule: ComponentChoice = ComponentChoice(name="core.constant")
    taps: ComponentChoice = ComponentChoice(name="models.by_resolution")
    data: DataSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    compile_teacher: bool = False
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    accumulate: PositiveInt = 1
    on_divergence: Literal["stop", "rollback"] = "stop"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    log_every: PositiveInt = 50
    checkpoint_every: PositiveInt = 500

    @model_validator(mode="before")
    @classmethod
    def _refuse_teacher_cache(cls, values: Any) -> Any:
        if isinstance(values, dict) and "teacher_cache" in values:
            raise ValueError(
                "teacher_cache: the teacher's features are no longer kept on disk; remove this key. To run the teacher "
                "less often, set `every = 2` in the schedule feds.staged."
            )
        return values

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a TOML file; relative paths in it start from its folder.

        Raises:
            RecipeError: the file cannot be read, is not TOML, or is not a valid recipe.
        """
        path = Path(path)
        values = from_folder(read_toml(path, "recipe"), path.resolve().parent)
        return validate(cls, values, f"recipe {path.name}")

    @classmethod
    def create(cls, **values: Any) -> Recipe:
        """Build a recipe in Python from the keys of the TOML file; paths are relative to the working directory.

        Raises:
            RecipeError: a value is not valid.
        """
        return validate(cls, values, "recipe")

    def resolve(self, plugins: Plugins) -> Recipe:
        """Return the recipe with every effective value filled in and every path absolute.

        Raises:
            RecipeError: a component is not registered, or its options are not valid.
        """

        def fill(kind: str, choice: ComponentChoice, where: str) -> ComponentChoice:
            _, config = plugins.configure(kind, choice.name, choice.options, where)
            return ComponentChoice(name=choice.name, **config.model_dump(mode="json"))

        for name, options in self.losses.items():
            if "." not in name and options:
                inner = next(iter(options))
                raise RecipeError(
                    f"recipe losses.{name}: expected a loss's full name. In TOML it needs quotes: "
                    f'[losses."{name}.{inner}"].'
                )
        losses = {
            name: plugins.configure("loss", name, options, f"recipe losses.{name}")[1].model_dump(mode="json")
            for name, options in self.losses.items()
        }
        initial = self.initial_weights
        inherits = initial == "teacher"
        if self.trains == "teacher" and (losses or self.teacher or inherits):
            raise RecipeError(
                "recipe trains: 'teacher' is trained without losses or a teacher of its own; remove them."
            )
        pair_class, config = plugins.configure("pair", self.pair.name, self.pair.options, "recipe pair")
        pair: CodecPair = pair_class(config)
        if (losses or inherits) and self.teacher is None and not pair.pretrained_teacher:
            why = "there are losses" if losses else 'initial_weights = "teacher"'
            raise RecipeError(
                f'recipe teacher: missing, but {why}. Train one first (trains = "teacher") and name its '
                "model.safetensors here."
            )
        self._check_lmbda(plugins)
        return self.model_copy(
            update={
                "pair": fill("pair", self.pair, "recipe pair"),
                "objective": fill("objective", self.objective, "recipe objective"),
                "schedule": fill("schedule", self.schedule, "recipe schedule"),
                "taps": fill("taps", self.taps, "recipe taps"),
                "losses": losses,
                "teacher": self.teacher.resolve() if self.teacher else None,
                "initial_weights": initial.resolve() if isinstance(initial, Path) else initial,
                "data": self.data.model_copy(update={"train": self.data.train.resolve()}),
            }
        )

    def _check_lmbda(self, plugins: Plugins) -> None:
        if "lmbda" in self.model_fields_set or self.objective.name == "core.mse":
            return
        usual = ", ".join(
            f"{lmbda:g}" for lmbda in plugins.get("objective", self.objective.name, "recipe objective").usual_lmbdas
        )
        raise RecipeError(
            f"recipe lmbda: missing; {self.objective.name} has another unit than the default is for. "
            + (f"In use with it are {usual}." if usual else "See its documentation.")
        )

    def to_toml(self) -> str:
        """Return the recipe as TOML."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))

    def save(self, path: Path) -> None:
        """Write the recipe as a TOML file."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self.to_toml(), encoding="utf-8")
        partial.replace(path)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the content of a TOML file; `what` it is stands in the message.

    Raises:
        RecipeError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{what} {path}: cannot be read: {error.strerror}; check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{what} {path}: not valid TOML: {error}.") from None


def from_folder(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the keys of a recipe with every relative path as it is from `folder`.

    Whatever is no path stays as it is, for validation to refuse.
    """
    placed = dict(recipe)
    if isinstance(teacher := recipe.get("teacher"), str):
        placed["teacher"] = folder / teacher
    if isinstance(weights := recipe.get("initial_weights"), str) and weights not in ("random", "teacher"):
        placed["initial_weights"] = folder / weights
    objective = recipe.get("objective")
    if isinstance(objective, dict) and isinstance(objective.get("weights"), str):  # of core.lpips
        placed["objective"] = {**objective, "weights": folder / objective["weights"]}
    data = recipe.get("data")
    if isinstance(data, dict) and isinstance(data.get("train"), str):
        placed["data"] = {**data, "train": folder / data["train"]}
    return placed


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
