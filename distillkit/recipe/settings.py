"""The tables of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt


class Settings(BaseModel):
    """A table of a recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ComponentChoice(BaseModel):
    """A registered component by its full name; every other key is one of its options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The component's options as in the recipe."""
        return dict(self.model_extra or {})


class DataSettings(Settings):
    """The training images.

    Attributes:
        train: folder of images, searched recursively; in a file, relative to the recipe's folder.
        crop: side of the square training crops in pixels.
        batch_size: crops per step, over all processes; 1 to 65536.
        num_workers: processes that decode images, 1024 at the most; 0 decodes in the training process. By default 0 on
            a CPU and where crops are cut on the device, else up to 8 for each GPU.
        cache_mib: decoded images are kept in memory up to this many MiB; all processes on a machine share them.
        cache: where crops are cut: `device` keeps all images on the device, as bytes, and cuts them there; `memory`
            cuts them on the CPU; `auto` is `device` on a GPU if they take less than half of its free memory. The crops
            are the same.
        hashes: whether `data.json`, by which a run that continues checks that its images are the same, also holds a
            hash of every file. Each file is then read once more; otherwise name, size and date are compared.
        bad_images: whether an image that cannot be used ends the run before it starts, or is left out.
        convert: also take pictures of other kinds than the codec's and convert them, see `read_image`; the run's notes
            count them.
        num_crops: number of different crops in the whole run, used again and again; by default every crop is new. A
            pair that keeps what it computes of a crop (`models.light`) then computes it once.
    """

    train: Path
    crop: PositiveInt = 256
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 8
    num_workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    cache_mib: NonNegativeInt = 2048
    cache: Literal["auto", "memory", "device"] = "auto"
    hashes: bool = False
    bad_images: Literal["refuse", "skip"] = "refuse"
    convert: bool = False
    num_crops: PositiveInt | None = None


class ValidationSettings(Settings):
    """Held-out pictures on which the run measures itself.

    Attributes:
        data: folder of pictures, searched recursively; in a file, relative to the recipe's folder. None may be a
            training image.
        every: steps between two validations; the last step has one, too.
        crops: number of crops, the same ones each time; of twice the training crops' side if every picture has it.
        save: which model the run leaves: `best`, the one with the least cost in a validation, or `last`.
    """

    data: Path
    every: PositiveInt = 1000
    crops: PositiveInt = 64
    save: Literal["best", "last"] = "best"


class OptimizerSettings(Settings):
    """How the weights move. Every other key is one of the optimiser's options.

    Attributes:
        name: of the optimiser; those of the core may be named without `core.`: `adam`, `adamw`, `sgd`, or `soap` and
            `muon`, which need far fewer steps.
        learning_rate: for the student and the loss terms' adapters, at its highest.
        aux_learning_rate: for the entropy bottlenecks' quantiles (Adam).
        clip_norm: largest norm of the gradient.
        rate_schedule: of the learning rate, by name, or by name with options: `constant`, `cosine` down to 0 over the
            whole run, `step`, or `plateau` (follows the validation); phases multiply it.
        warmup_steps: steps over which the learning rate rises linearly.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    name: str = "adam"
    learning_rate: PositiveFloat = 1e-4
    aux_learning_rate: PositiveFloat = 1e-3
    clip_norm: PositiveFloat = 1.0
    rate_schedule: str | ComponentChoice = "constant"
    warmup_steps: NonNegativeInt = 0

    @property
    def options(self) -> dict[str, Any]:
        """The optimiser's options as in the recipe."""
        return dict(self.model_extra or {})

    @property
    def rate(self) -> ComponentChoice:
        """The rate schedule with its options, by its full name."""
        choice = self.rate_schedule
        choice = ComponentChoice(name=choice) if isinstance(choice, str) else choice
        return ComponentChoice(name=full_name(choice.name), **choice.options)


def full_name(name: str) -> str:
    """Return the full name of an optimiser or rate schedule: those of the core may be named without `core.`."""
    return name if "." in name else f"core.{name}"
