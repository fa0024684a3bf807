"""The command that measures a codec at work."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, Quiet, app, messages, show
from .compress import Precise, Precision
from .devices import Device


class Classical(StrEnum):
    """A codec to compare with."""

    jpeg = "jpeg"
    webp = "webp"
    avif = "avif"
    jpeg_xl = "jpeg-xl"
    vvc = "vvc"


_QUICK = [Classical.jpeg, Classical.webp, Classical.avif, Classical.jpeg_xl]


@app.command()
def bench(
    model: Annotated[Path, typer.Argument(help="A run folder, or a model.safetensors: the student.")],
    data: Annotated[Path, typer.Option(help="Folder of pictures to measure on.")],
    teacher: Annotated[Path | None, typer.Option(help="Another model, to compare with.", show_default="none")] = None,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.png.")] = Path("runs/bench"),
    against: Annotated[
        list[Classical] | None,
        typer.Option(
            metavar="CODEC",
            help="A classical codec to compare with at the model's PSNR: jpeg, webp, avif, jpeg-xl or vvc; may be "
            "given several times.",
            show_default="all but vvc, which takes seconds per picture",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed runs on each picture.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads that each codec may use.", min=1)] = 1,
    quality: Annotated[
        float | None,
        typer.Option(help="From 0 to 1, for models of many rates.", show_default="0.5; models of one rate have none"),
    ] = None,
    precision: Precise = Precision.auto,
    device: Device = "cpu",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure time by part, memory and size, against teacher and classical codecs."""
    from ..data.listing import list_images
    from ..errors import DistillkitError
    from ..evaluation.speed.measure import bench as measure
    from ..evaluation.speed.plot import save_plot
    from ..evaluation.speed.table import as_text

    images = list_images(data)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DistillkitError(
            f"bench {out}: cannot be written: {error.strerror}; choose another place with --out."
        ) from None
    with messages(quiet).status("loading") as status:
        result = measure(
            model,
            images,
            teacher=teacher,
            against=[codec.value for codec in against or _QUICK],
            repeats=repeats,
            threads=threads,
            precision=precision.value,
            device=device,
            quality=quality,
            on_step=status.update,
        )
    (out / "bench.json").write_text(result.to_json(), encoding="utf-8")
    drawn = save_plot(result, out / "bench.png")
    show(as_text(result), result.to_json(), as_json)
    if not drawn:
        print("No plot: matplotlib is not installed; `pip install 'distillkit-lic[plots]'`.", file=sys.stderr)
