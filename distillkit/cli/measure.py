"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, Quiet, app, notes, show
from .devices import Device


@app.command()
def evaluate(
    models: Annotated[list[Path], typer.Argument(help="Run folders, or model.safetensors files.")],
    data: Annotated[Path, typer.Option(help="Folder of pictures to measure on.")],
    out: Annotated[Path, typer.Option(help="Folder for compressed files, decoded pictures and results.")] = Path(
        "runs/evaluation"
    ),
    lpips: Annotated[
        Path | None,
        typer.Option(
            help="torchvision's weights of AlexNet: also measure LPIPS (extra `perceptual`).", show_default="none"
        ),
    ] = None,
    dists: Annotated[
        Path | None,
        typer.Option(
            help="torchvision's weights of VGG-16: also measure DISTS (extra `perceptual`).", show_default="none"
        ),
    ] = None,
    quality: Annotated[
        list[float] | None,
        typer.Option(help="From 0 to 1, for models of many rates; may be repeated.", show_default="0 0.25 0.5 0.75 1"),
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compress pictures to real files with each model, decode them, and measure."""
    from ..data.listing import list_images
    from ..evaluation.side_by_side import compare
    from ..model.conditioned import FIXED_POINTS
    from ..training.objectives.distances import Dists, Lpips

    names = _distinct_names(models)
    perceptual = [*([Lpips(lpips)] if lpips else []), *([Dists(dists)] if dists else [])]
    named = dict(zip(names, models, strict=True))
    images = list_images(data, leave_out=[out])
    comparison = compare(
        named,
        images,
        out,
        on_model=notes(quiet, "measuring"),
        perceptual=perceptual,
        qualities=quality or FIXED_POINTS,
        device=device,
    )
    show(comparison.table(), comparison.to_json(), as_json)


def _distinct_names(models: list[Path]) -> list[str]:
    names = [(path.parent if path.is_file() else path).resolve().name.removeprefix("zoo:") for path in models]
    return [name if names.count(name) == 1 else f"{index}-{name}" for index, name in enumerate(names, 1)]
