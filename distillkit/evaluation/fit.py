"""Students to order: the largest of a pair whose time or size stays within a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, final

import numpy as np
import tomli_w
from numpy.typing import NDArray

from ..codec.runtime import ImageCodec
from ..data.images import read_image
from ..errors import PairError
from ..hooks.loader import Plugins, load_plugins
from ..model.adapters import as_codec
from ..model.complexity import kmac_per_pixel, num_parameters
from ..model.conditioned import ConditionedAdapter, at_quality
from ..model.device import find_device
from ..model.file import MODEL_NAME, MSE, TrainedModel, load_model, model_file, save_model
from ..model.gain_units import GainedCodec
from ..model.lmbda import LmbdaRange
from ..model.zoo import PREFIX
from ..recipe.recipe import Recipe
from ..recipe.shipped import load_for_pair
from ..taps.orders import Offer, Order
from ..taps.pair import CodecPair
from .bits import bits_by_channel, load_crops
from .same_files import usual_quality
from .speed.machine import this_machine
from .speed.timing import Coder, time_by_turns, torch_threads, warm_up

Measure = Literal["decode_ms", "encode_ms", "kmac", "params"]

#: Share of the bits of the teacher's latent that the channels carry which a student should have.
SHARE = 0.99
NUM_PICTURES = 8  #: whose bits are counted
_LEVELS = 6  #: of gain, for a student of many rates whose teacher has no gain units
_FEW, _MANY = 3, 9  #: timed calls while searching, of which the fastest counts, and of what is found: their median
_UNITS: Mapping[Measure, tuple[str, str]] = {
    "decode_ms": ("decoding", "{:.1f} ms"),
    "encode_ms": ("encoding", "{:.1f} ms"),
    "kmac": ("the whole codec", "{:.2f} kMAC/pixel"),
    "params": ("the whole codec", "{:.0f} parameters"),
}


@final
@dataclass(frozen=True)
class Cost:
    """What a codec costs.

    Attributes:
        decode_ms: median milliseconds from bytes to pixels; None where it was not timed, as the next.
        encode_ms: from pixels to bytes.
        kmac: thousands of multiply-accumulates for each pixel, analysis to synthesis.
        params: parameters in all.
    """

    decode_ms: float | None
    encode_ms: float | None
    kmac: float
    params: int

    def of(self, measure: Measure) -> float:
        """Return one of these."""
        return float(getattr(self, measure))

    def __str__(self) -> str:
        return (
            f"decoding {self.decode_ms:.1f} ms, encoding {self.encode_ms:.1f} ms, {self.kmac:.2f} kMAC/pixel, "
            f"{self.params} parameters"
        )


@final
@dataclass(frozen=True)
class Fitted:
    """A student that was found.

    Attributes:
        recipe: that trains it.
        cost: of the student.
        teacher: what the teacher costs.
        comment: lines on the order and what was measured.
    """

    recipe: Recipe
    cost: Cost
    teacher: Cost
    comment: Sequence[str]

    def to_toml(self) -> str:
        """Return the recipe's file, the comment first."""
        values = self.recipe.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        return "".join(f"# {line}\n" for line in self.comment) + tomli_w.dumps(values)


def fit(
    teacher: str | Path,
    images: Sequence[Path],
    measure: Measure,
    limit: float,
    *,
    train: Path,
    pair: str = "models.lowres",
    size: tuple[int, int] = (768, 512),
    threads: int = 1,
    plugins: Plugins | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Return the largest student of a pair whose cost stays within a limit.

    For each depth that the pair offers the width is bisected. Of the widest that fit, the one with the most kMAC/pixel
    is taken, or with the most parameters where kMAC are what is limited. Each candidate is written to a file, read
    again, and measured as `bench` measures, untrained.

    Args:
        teacher: a run folder, a model file or `zoo:NAME`.
        images: pictures of the teacher's samples; its bits are counted on the first eight, and the first is coded,
            mirrored at its edges or cut to `size`.
        measure: what is limited.
        limit: of that; above 0.
        train: the folder of training pictures that the recipe names.
        pair: whose students are searched.
        size: width and height in pixels of the picture that is timed.
        threads: that coding may use.
        plugins: where pairs are registered; by default the installed plugins.
        on_step: called with what is measured next.

    Raises:
        DistillkitError: the teacher or a picture cannot be used, the pair offers nothing, the teacher fits itself, or
            the smallest student does not.
    """
    plugins = plugins or load_plugins()
    path = str(teacher) if str(teacher).startswith(PREFIX) else str(Path(teacher).absolute())
    model = load_model(path, plugins)
    codec = model.codec
    on_step("bits of the teacher")
    channels, num_channels = used_channels(model, images[:NUM_PICTURES])
    units = len(codec.gain_units.get_parameter("y")) if isinstance(codec, GainedCodec) else _LEVELS
    order = Order(
        path, channels, units if isinstance(codec, ConditionedAdapter) else None, is_encoder=measure == "encode_ms"
    )
    pair_class: type[CodecPair] = plugins.get("pair", pair, "fit, --pair")
    offer = pair_class.students_to_order(order)
    if offer is None:
        raise PairError(f"fit: pair {pair} has no students to order; choose another with --pair.")
    picture = _picture(read_image(images[0], samples=codec.samples), size)
    name, form = _UNITS[measure]
    with torch_threads(threads), TemporaryDirectory() as folder:
        bench = _Bench(model, pair, pair_class, plugins, picture, Path(folder) / MODEL_NAME, measure)
        on_step("the teacher")
        own = bench.cost_of(model, _MANY)
        if own.of(measure) <= limit:
            raise PairError(
                f"fit: the teacher itself is within {form.format(limit)}: {name} takes {form.format(own.of(measure))}; "
                "ask for less."
            )
        options, cost = _search(offer, bench, limit, on_step)
    machine = this_machine(threads, find_device("cpu", "device"))
    width, height = size
    comment = [
        f"A student of {pair} to order: {name} within {form.format(limit)}.",
        f"Measured, untrained: {cost}.",
        f"The teacher: {own}.",
        f"Times: medians of {_MANY} calls on a picture of {width}x{height} pixels. Machine: {machine}.",
        *([] if machine.is_quiet else ["NOT QUIET: other programs ran; the times cannot be trusted."]),
        f"{channels} of the teacher's {num_channels} latent channels carry {SHARE:.0%} of the latent's bits.",
    ]
    return Fitted(_recipe(bench, path, options, offer, train), cost, own, comment)


def used_channels(model: TrainedModel, images: Sequence[Path]) -> tuple[int, int]:
    """Return how many channels of a codec's latent carry 99 % of its bits, and how many it has.

    A codec of many rates is run at its highest.

    Raises:
        PairError: its likelihoods name no latent y, or no picture is as large as its stride.
    """
    highest = 1.0 if isinstance(model.codec, ConditionedAdapter) else None
    codec = at_quality(model.codec, highest)
    found = bits_by_channel(codec, load_crops(images, codec.stride, codec.samples))
    if found is None:
        raise PairError(
            f"fit: expected a teacher with likelihoods of a latent called y, and pictures of {codec.stride} pixels or "
            "more a side, to count the channels that carry bits; got none. Rename them, or take larger pictures."
        )
    bits = np.sort(found.by_channel)[::-1].cumsum()
    return int(np.searchsorted(bits, SHARE * bits[-1])) + 1, len(bits)


@dataclass
class _Bench:
    """Measures students of one pair."""

    teacher: TrainedModel
    pair: str
    pair_class: type[CodecPair]
    plugins: Plugins
    picture: NDArray[Any]
    file: Path
    measure: Measure

    def student(self, options: Mapping[str, Any]) -> TrainedModel:
        """Return an untrained student as its file would be read."""
        config = self.plugins.configure("pair", self.pair, options, f"fit: pair {self.pair}")[1]
        pair = self.pair_class(config)
        codec = as_codec(pair.build_student())
        if codec.samples != self.teacher.codec.samples:
            raise PairError(
                f"fit: expected a teacher of {codec.samples}, as students of {self.pair} are, got one of "
                f"{self.teacher.codec.samples}; choose another with --pair."
            )
        about = pair.options_of("student", codec.module)
        save_model(self.file, codec, self.pair, about, "student", self.teacher.lmbda)
        return load_model(self.file, self.plugins)

    def cost_of(self, model: TrainedModel, repeats: int) -> Cost:
        """Return what a codec costs; times are not taken for 0 repeats."""
        kmac, params = kmac_per_pixel(model.codec), num_parameters(model.codec.module)
        if not repeats:
            return Cost(None, None, kmac, params)
        codec = ImageCodec(model, trusted=True)
        coder = Coder(partial(codec.encode, quality=usual_quality(codec)), codec.decode)
        timed = warm_up(coder, self.picture)
        time_by_turns({"": (coder, timed)}, self.picture, repeats)
        typical = min if repeats == _FEW else median  # one that other programs slowed must not end the search
        encode_ms, decode_ms = (1000 * typical(run.seconds for run in runs) for runs in timed.runs.values())
        return Cost(decode_ms, encode_ms, kmac, params)


def _search(
    offer: Offer, bench: _Bench, limit: float, on_step: Callable[[str], None]
) -> tuple[Mapping[str, Any], Cost]:
    """Return the options and the cost of the largest student that fits."""
    repeats = _FEW if bench.measure.endswith("_ms") else 0
    size = "params" if bench.measure == "kmac" else "kmac"
    over: list[float] = []

    def fits(depth: int, place: int, repeats: int) -> Cost | None:
        on_step(f"depth {depth + 1} of {len(offer.ladders)}, size {place + 1} of {len(offer.ladders[depth])}")
        cost = bench.cost_of(bench.student(offer.ladders[depth][place]), repeats)
        if cost.of(bench.measure) <= limit:
            return cost
        over.append(cost.of(bench.measure))
        return None

    widest: list[tuple[Cost, int, int]] = []
    for depth, ladder in enumerate(offer.ladders):
        if (cost := fits(depth, 0, repeats)) is None:
            break  # nor do deeper ones
        largest, low, high = (cost, depth, 0), 1, len(ladder) - 1
        while low <= high:
            middle = (low + high) // 2
            if (cost := fits(depth, middle, repeats)) is None:
                high = middle - 1
            else:
                largest, low = (cost, depth, middle), middle + 1
        widest.append(largest)
    while widest:
        widest.sort(key=lambda each: getattr(each[0], size))
        cost, depth, place = widest.pop()
        if (last := fits(depth, place, _MANY)) is not None:  # what fits once may not fit twice
            return offer.ladders[depth][place], last
        if place:
            widest.append((replace(cost, kmac=0, params=0), depth, place - 1))
    name, form = _UNITS[bench.measure]
    raise PairError(
        f"fit: no student of {bench.pair} is within {form.format(limit)}: {name} takes {form.format(min(over))} with "
        "the smallest; ask for more, or choose another with --pair."
    )


def _recipe(bench: _Bench, path: str, options: Mapping[str, Any], offer: Offer, train: Path) -> Recipe:
    """Return what trains a student: the recipe that ships for its pair, changed."""
    model = bench.teacher
    config = bench.plugins.configure("pair", bench.pair, options, f"fit: pair {bench.pair}")[1]
    lmbda = asdict(model.lmbda) if isinstance(model.lmbda, LmbdaRange) else model.lmbda
    changes: dict[str, Any] = {"pair": {"name": bench.pair, **options}, "lmbda": lmbda}
    if not bench.pair_class(config).pretrained_teacher:
        changes["teacher"] = str(model_file(path).absolute())
    changes |= {} if model.pair == bench.pair else {"initial_weights": "random"}  # its weights belong elsewhere
    if model.objective != MSE:
        changes["objective"] = model.objective
    recipe = load_for_pair(bench.pair, "lite", "student", train.absolute(), bench.plugins)
    return recipe.changed(changes | dict(offer.changes))


def _picture(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return a picture, shape (H, W, C), cut or mirrored at its edges to a width and a height."""
    width, height = size
    margins = ((0, max(height - image.shape[0], 0)), (0, max(width - image.shape[1], 0)), (0, 0))
    return np.ascontiguousarray(np.pad(image, margins, mode="symmetric")[:height, :width])
