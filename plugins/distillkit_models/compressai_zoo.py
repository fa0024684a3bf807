"""The pair `models.compressai`: CompressAI's own codecs, any as teacher of any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

import distillkit

from .compressai_registry import Argument, find, parameters

if TYPE_CHECKING:
    from torch import nn

#: Trade-offs that CompressAI's qualities 1 to 8 were trained for (MSE).
LMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
#: Architectures of which CompressAI has trained weights, and which its `eval_model` knows by name.
Zoo = Literal[
    "bmshj2018-factorized",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
]
#: Architectures whose sizes are known here, beside those; others that CompressAI registers know them themselves.
KNOWN = (
    *get_args(Zoo),
    "cheng2020-anchor-checkerboard",
    "elic2022-official",
    "elic2022-chandelier",
    "bmshj2018-hyperprior-vbr",
    "mbt2018-mean-vbr",
    "mbt2018-vbr",
)


class Architecture(distillkit.ComponentConfig):
    """One of CompressAI's codecs, untrained.

    Attributes:
        architecture: its name in the registry of the installed CompressAI: any image codec.
        quality: 1 to 8 (6 for cheng2020): the sizes of CompressAI's zoo at that quality.
        N: channels of the transforms, instead of the quality's.
        M: channels of the latent, instead of the quality's; `cheng2020-*` have M = N.
        groups: channels of the latent's groups (`elic2022-*`), M in all; by default 16, 16, 32, 64 and the rest.
        vr_entbttlnck: whether the hyper-latent's step size follows from the quality, too: the option of that name of
            `bmshj2018-hyperprior-vbr` and `mbt2018-mean-vbr`.
        gain_units: number of qualities at which gains are learnt; they turn a codec of one rate into one of many. By
            default none.
        arguments: other arguments of the codec's class, by their names in CompressAI.
    """

    architecture: str = "mbt2018-mean"
    quality: Annotated[int, Field(ge=1, le=8)] | None = None
    N: Annotated[int, Field(gt=0)] | None = None
    M: Annotated[int, Field(gt=0)] | None = None
    groups: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    vr_entbttlnck: bool = False
    gain_units: Annotated[int, Field(ge=2)] | None = None
    arguments: dict[str, Argument] = Field(default_factory=dict)

    @field_validator("architecture")
    @classmethod
    def _is_registered(cls, name: str) -> str:
        if name not in KNOWN:  # else CompressAI, which takes seconds to import, is not asked
            find(name)
        return name

    @model_validator(mode="after")
    def _sizes_fit(self) -> Architecture:
        name = self.architecture
        is_known = name in KNOWN
        one_width, grouped = (is_known and name.startswith(family) for family in ("cheng2020", "elic2022"))
        variable = name.endswith("-vbr")
        if one_width and self.M is not None:
            raise ValueError(f"M: {name} has as many latent channels as N; leave M out.")
        if self.quality is not None and (not is_known or grouped or variable or (one_width and self.quality > 6)):
            known = "qualities 1 to 6" if one_width else "no qualities; give N and M"
            raise ValueError(f"quality: {name} has {known}, got {self.quality}.")
        if self.groups is not None and (not grouped or (self.M is not None and sum(self.groups) != self.M)):
            wanted = f"groups of {self.M} channels in all, got {sum(self.groups)}" if grouped else "no groups"
            raise ValueError(f"groups: expected {wanted}.")
        if grouped and self.groups is None and self.M is not None and self.M <= 128:
            raise ValueError(f"groups: expected groups for M = {self.M}; the usual 16, 16, 32, 64 take 128 channels.")
        if variable and self.gain_units is not None:
            raise ValueError(f"gain_units: expected none, for {name} has many rates by itself.")
        if self.vr_entbttlnck and name not in ("bmshj2018-hyperprior-vbr", "mbt2018-mean-vbr"):
            raise ValueError(f"vr_entbttlnck: {name} has no such option; leave it out.")
        if self.arguments:
            known = [key for key in parameters(find(name)) if key not in Architecture.model_fields]
            if unknown := [key for key in self.arguments if key not in known]:
                told = f"expected some of {', '.join(known) or 'none'}, which {name} has beside the other options"
                raise ValueError(f"arguments: {told}, got {', '.join(unknown)}; correct them.")
        if grouped and self.N == 1:
            raise ValueError(f"N: {name} halves its width within; expected at least 2, got 1.")
        return self


class Teacher(Architecture):
    """One of CompressAI's codecs, with weights if there are any.

    Attributes:
        pretrained: take CompressAI's weights of `quality`, which are downloaded once.
        weights: take them from a file: safetensors, or a CompressAI checkpoint (`.pth`, `.pth.tar`), which is read
            without running code; sizes that are not given follow from it. Relative to the working directory, not to
            the recipe's folder.
        lmbda: trade-off that `weights` were trained for; if given, it is checked against the recipe's.
    """

    pretrained: bool = False
    weights: Annotated[Path, AfterValidator(Path.absolute)] | None = None
    lmbda: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Teacher:
        if self.pretrained and self.architecture not in get_args(Zoo):
            raise ValueError(f"pretrained: CompressAI has no weights of {self.architecture}; name a file as weights.")
        if self.pretrained and (self.weights is not None or self.quality is None or self.N or self.M):
            raise ValueError("pretrained: expected a quality, and no N, M or weights beside it.")
        if self.weights is not None and self.quality is not None:
            raise ValueError("weights: expected no quality beside them; sizes follow from the file.")
        if self.pretrained and self.lmbda is not None:
            raise ValueError("lmbda: expected none beside pretrained; it follows from the quality.")
        return self


@final
class CompressAIPair(distillkit.CodecPair):
    """Two of CompressAI's codecs, of one architecture or two.

    Source: CompressAI (Begaint et al., 2020, arXiv 2011.03029), whose model zoo has them, and the source of each
    architecture.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            teacher: the large codec; small by default, for trying things out.
            student: the small codec.
        """

        teacher: Teacher = Teacher(N=24, M=32)
        student: Architecture = Architecture(N=12, M=32)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Return each architecture at the zoo's quality 4, or of its paper's size, and a thinner student."""
        listed = []
        for name in KNOWN:
            if name.endswith("-vbr"):  # as large as those without
                continue
            if name.startswith("elic2022"):
                sizes, thin = {"N": 192, "M": 320}, {"N": 64, "M": 320}
            else:
                sizes, thin = {"quality": 4}, {"N": 96} if name.startswith("cheng2020") else {"N": 64, "M": 192}
            listed.append({"teacher": {"architecture": name, **sizes}, "student": {"architecture": name, **thin}})
        return listed

    @property
    def pretrained_teacher(self) -> bool:
        """Whether the teacher's weights come from CompressAI or from a file."""
        return self.config.teacher.pretrained or self.config.teacher.weights is not None

    @property
    def teacher_lmbda(self) -> float | None:
        """The trade-off that a pretrained teacher was trained for, if that is known."""
        teacher = self.config.teacher
        return LMBDAS[teacher.quality - 1] if teacher.pretrained else teacher.lmbda

    def options_of(self, part: Literal["teacher", "student"], module: nn.Module) -> dict[str, Any]:
        """Return the pair's options, but a teacher's sizes in place of where its first weights came from."""
        options = super().options_of(part, module)
        if part == "teacher" and self.pretrained_teacher:
            from .compressai_weights import sizes

            name = self.config.teacher.architecture
            found = (sizes(name, module.state_dict()) or {}) | {"gain_units": self.config.teacher.gain_units}
            options["teacher"] = Teacher.model_validate({"architecture": name, **found}).model_dump(mode="json")
        return options

    def sources_of(self, part: Literal["teacher", "student"]) -> list[str]:
        """Return the options of the teacher's weights; a student never opens them."""
        return super().sources_of(part) if part == "teacher" else []

    def build_teacher(self) -> nn.Module | distillkit.CodecAdapter:
        """Return the teacher, with its weights if there are any.

        Raises:
            PairError: the weights cannot be had, or do not fit.
        """
        from .compressai_weights import download, load

        teacher: Teacher = self.config.teacher
        if teacher.pretrained:
            return adapted(teacher, download(teacher.architecture, teacher.quality))
        if teacher.weights is not None:
            return adapted(teacher, load(teacher, teacher.weights))
        return adapted(teacher, build(teacher))

    def build_student(self) -> nn.Module | distillkit.CodecAdapter:
        """Return the student, untrained."""
        return adapted(self.config.student, build(self.config.student))

    def with_weights(self, part: Literal["teacher", "student"], path: Path) -> nn.Module:
        """Return a codec of the student's or teacher's architecture, of the sizes that a file of weights has.

        Raises:
            PairError: the file cannot be read, or holds another architecture.
        """
        from .compressai_weights import load

        name = getattr(self.config, part).architecture
        return load(Architecture.model_validate({"architecture": name}), path)


def adapted(codec: Architecture, net: nn.Module) -> nn.Module | distillkit.CodecAdapter:
    """Return a codec, with gain units if the options ask for them."""
    if codec.architecture.endswith("-vbr"):
        from .compressai_vbr import CompressAIVbr

        return CompressAIVbr(net)
    return distillkit.GainedCodec(net, codec.gain_units) if codec.gain_units else net


def build(codec: Architecture) -> nn.Module:
    """Return a codec with random weights.

    Raises:
        PairError: its sizes are not given.
    """
    from compressai.zoo.image import cfgs

    model = find(codec.architecture)
    family = "cheng2020-anchor" if codec.architecture.endswith("checkerboard") else codec.architecture
    usual = cfgs[family][codec.quality] if codec.quality else ()
    sizes: dict[str, Any] = dict(zip(("N", "M"), usual, strict=False))
    sizes |= {name: value for name in ("N", "M") if (value := getattr(codec, name)) is not None}
    if codec.groups:
        sizes |= {"groups": list(codec.groups), "M": sum(codec.groups)}
    if codec.vr_entbttlnck:
        sizes["vr_entbttlnck"] = True
    sizes |= {name: list(value) if isinstance(value, tuple) else value for name, value in codec.arguments.items()}
    named = parameters(model)
    needed = [name for name, each in named.items() if each.default is each.empty]
    if codec.architecture in KNOWN:  # the defaults of their classes are of one paper's size
        needed = [name for name in ("N", "M") if name in named]
    if missing := [name for name in needed if name not in sizes]:
        raise distillkit.PairError(
            f"models.compressai: {codec.architecture}: expected a quality or its sizes, got N = {codec.N}, "
            f"M = {codec.M}; add what is missing: {', '.join(missing)}."
        )
    if unknown := [name for name in sizes if name not in named]:
        raise distillkit.PairError(
            f"models.compressai: {codec.architecture}: expected arguments of its class ({', '.join(named)}), got "
            f"{', '.join(unknown)}; leave those out."
        )
    return model(**sizes)
