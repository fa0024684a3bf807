"""What one run is: typed, validated, TOML in and out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tomli_w
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from ..errors import RecipeError
from ..hooks.components import validate
from ..model.lmbda import Lmbda, as_lmbda
from ..model.zoo import PREFIX, find
from .changes import apply_changes
from .paths import from_folder
from .settings import ComponentChoice, DataSettings, OptimizerSettings, Settings, ValidationSettings

TEACHER = "teacher"  #: the name of the teacher that `Recipe.teacher` names, or that the pair has
TOGETHER = "teachers"  #: the name of all of `Recipe.teachers` together, of which the nearest by lambda teaches a crop


def _shipped(value: object) -> object:
    return find(value) if isinstance(value, str) and value.startswith(PREFIX) else value


ModelFile = Annotated[Path, BeforeValidator(_shipped)]  #: of a trained model; `zoo:NAME` for one that ships


class Recipe(Settings):
    """One run: train the student of a pair (with or without a teacher), or its teacher.

    Attributes:
        trains: which of the pair's two codecs this run trains.
        pair: the pair, by name, with its options.
        teacher: file of the trained teacher (`model.safetensors` of its run, or `zoo:NAME` for a model that ships), of
            this pair or another one; needed when there are losses.
        teachers: further teachers by name, `rate = "runs/q1/model.safetensors"`; a loss names its teacher by the key
            `teacher`; without that key it has the teacher above. A teacher may have any lambda, except where a loss
            needs the run's own. If the codec has many rates and a loss names none of several teachers, they teach
            together: each crop is taught by the one whose lambda is nearest to the crop's.
        initial_weights: `random`, `teacher` (what fits of its weights, see `distillkit.model.initialise`), or the file
            of another trained model, or of weights that distillkit did not write (a checkpoint of CompressAI, or of the
            pair's own codec), which are treated in the same way.
        objective: what the codec is trained for, by name, with options.
        lmbda: trade-off of the rate-distortion cost: `lmbda` times the objective's distortion is in bits per pixel; or
            the range of a codec of many rates, `{low = 0.0018, high = 0.0483}`, from which each crop has its own,
            spread evenly by the logarithm.
        num_steps: optimiser steps of the whole run; with 0 its model is what it starts from.
        losses: loss terms by name, each with its options and, where there are several, its `teacher`; without any, the
            run trains without distillation. A loss can be used several times, each under a label that names it:
            `[losses.fine]`, `name = "kd.hint"`.
        schedule: the phases, by name, with options.
        taps: how feature taps are found, by name, with options.
        data: the training images.
        optimizer: how the weights move.
        extensions: what acts around the optimiser's step, by name, each with its options, in this order.
        validation: held-out pictures on which the run measures itself; without, the last model is saved.
        compile_teacher: whether the teacher's parts between the taps are compiled (`torch.compile`): minutes at the
            start of a run, for less time in each step; features differ by rounding.
        compile: how a step's work reaches the device. `none` launches each kernel from Python; `graph` records each
            kind of step, its losses, gradients and weights' moves, and replays it (CUDA graphs, one process, not
            fp16); `inductor` compiles the codec's parts between the taps as well: minutes at the start. `auto` is
            `graph` where there is one, else `none`. Results differ by rounding.
        precision: `bf16` runs convolutions and products in bfloat16 where that is safe, `fp16` in float16, with
            gradients scaled to its narrow range; `auto` is `bf16` where the device is faster in it (on a CPU that is
            measured), and `fp32` elsewhere.
        device: `cpu`, `cuda`, one GPU of several (`cuda:1`), or `mps`; `auto` takes a GPU where there is one. Each of
            several processes takes another GPU.
        accumulate: parts into which each process cuts its share of a batch to save memory; they run one after the
            other.
        on_divergence: what is done when a loss or a weight is not finite: `stop`, or `rollback` to the newest
            checkpoint and continue from there at half the learning rate, five times at most.
        seed: of initial weights, crops and quantisation noise.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
    """

    trains: Literal["student", "teacher"] = "student"
    pair: ComponentChoice
    teacher: ModelFile | None = None
    teachers: dict[str, ModelFile] = Field(default_factory=dict)
    initial_weights: Literal["random", "teacher"] | ModelFile = "random"
    objective: ComponentChoice = ComponentChoice(name="core.mse")
    lmbda: Lmbda = 0.013
    num_steps: NonNegativeInt
    losses: dict[str, dict[str, Any]] = Field(default_factory=dict)
    schedule: ComponentChoice = ComponentChoice(name="core.constant")
    taps: ComponentChoice = ComponentChoice(name="models.by_resolution")
    data: DataSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    extensions: dict[str, dict[str, Any]] = Field(default_factory=dict)
    validation: ValidationSettings | None = None
    compile_teacher: bool = False
    compile: Literal["auto", "none", "graph", "inductor"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    accumulate: PositiveInt = 1
    on_divergence: Literal["stop", "rollback"] = "stop"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    log_every: PositiveInt = 50
    checkpoint_every: PositiveInt = 500

    @field_validator("lmbda", mode="before")
    @classmethod
    def _number_or_range(cls, value: Any) -> Lmbda:
        return as_lmbda(value)

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
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
        """Read a recipe from a TOML file; relative paths in it start from its folder.

        Args:
            path: the file.
            changes: values in place of the file's, by key: `{"num_steps": 50, "optimizer.learning_rate": 1e-3}`.

        Raises:
            RecipeError: the file cannot be read, is not TOML, or is not a valid recipe; or a change does not fit.
        """
        path, changes = Path(path), changes or {}
        values = from_folder(apply_changes(read_toml(path, "recipe"), changes), path.resolve().parent)
        return validate(cls, values, " ".join([f"recipe {path.name}", *(f"--set {key}" for key in changes)]))

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """Return the recipe with some values changed, by key as with `load`; paths start from the working directory.

        Raises:
            RecipeError: a change does not fit.
        """
        where = " ".join(["recipe", *(f"--set {key}" for key in changes)])
        return validate(type(self), apply_changes(self.model_dump(exclude_unset=True), changes), where)

    @classmethod
    def create(cls, **values: Any) -> Recipe:
        """Build a recipe in Python from the keys of the TOML file; paths are relative to the working directory.

        Raises:
            RecipeError: a value is not valid.
        """
        return validate(cls, values, "recipe")

    def to_toml(self) -> str:
        """Return the recipe as TOML."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))

    def save(self, path: Path) -> None:
        """Write the recipe as a TOML file."""
        partial = path.with_name(path.name[:60] + ".partial")  # a name may be as long as names may be
        partial.write_text(self.to_toml(), encoding="utf-8")
        partial.replace(path)


_MAX_BYTES = 1 << 20  # of a recipe; real ones have some hundred


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the content of a TOML file; messages call it `what`.

    Raises:
        RecipeError: it cannot be read, or is not TOML.
    """
    try:
        if path.exists() and not path.is_file():
            raise RecipeError(f"{what} {path}: expected a file, got a folder or device; check the path.")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise RecipeError(f"{what} {path}: expected at most {_MAX_BYTES} bytes, got more; check the path.")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise RecipeError(f"{what} {path}: cannot be read: {error.strerror}; check the path.") from None
    except RecursionError:
        raise RecipeError(f"{what} {path}: not valid: its tables are nested too deeply; check the file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{what} {path}: not valid TOML: {error}.") from None


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in cast(list[Any], value)]
    return value
