"""The command that finds students to order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import Quiet, app, messages

if TYPE_CHECKING:
    from ..evaluation.fit import Measure


@app.command()
def fit(
    teacher: Annotated[Path, typer.Argument(help="The trained codec: a run folder, a model.safetensors or zoo:NAME.")],
    data: Annotated[Path, typer.Option(help="Folder of training pictures.")],
    decode_ms: Annotated[
        float | None, typer.Option(help="Milliseconds within which it decodes a picture.", show_default="not limited")
    ] = None,
    encode_ms: Annotated[
        float | None, typer.Option(help="Milliseconds within which it encodes a picture.", show_default="not limited")
    ] = None,
    kmac: Annotated[
        float | None,
        typer.Option(help="Thousands of multiply-accumulates for each pixel, at most.", show_default="not limited"),
    ] = None,
    params: Annotated[int | None, typer.Option(help="Parameters, at most.", show_default="not limited")] = None,
    pair: Annotated[
        str,
        typer.Option(
            help="The family: models.lowres, models.cheng2020, or models.light: the teacher itself with a light "
            "decoder, or with a light encoder for --encode-ms."
        ),
    ] = "models.lowres",
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the picture that is timed.")] = "768x512",
    threads: Annotated[int, typer.Option(help="Threads that coding may use.", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Print the recipe of the largest student within ONE limit of time or size."""
    from ..data.listing import list_images
    from ..errors import DistillkitError
    from ..evaluation.fit import fit as search

    wishes: list[tuple[Measure, float | None]] = [
        ("decode_ms", decode_ms),
        ("encode_ms", encode_ms),
        ("kmac", kmac),
        ("params", params),
    ]
    given: list[tuple[Measure, float]] = [(measure, limit) for measure, limit in wishes if limit is not None]
    if len(given) != 1:
        names = ", ".join("--" + measure.replace("_", "-") for measure, _ in wishes)
        raise DistillkitError(f"fit: expected one limit of {names}, got {len(given) or 'none'}; give one.")
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
    if not sides:
        raise DistillkitError(
            f"fit --size: expected a width and a height in pixels such as 768x512, got {size}; correct it."
        )
    measure, limit = given[0]
    with messages(quiet).status("loading") as status:
        found = search(
            teacher,
            list_images(data),
            measure,
            limit,
            train=data,
            pair=pair,
            size=(int(sides[1]), int(sides[2])),
            threads=threads,
            on_step=status.update,
        )
    print(found.to_toml(), end="")
