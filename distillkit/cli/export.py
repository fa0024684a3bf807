"""The command that writes a model for use without distillkit."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .app import Quiet, app, notes
from .names import named


class Target(StrEnum):
    """Form of the export."""

    model = "model"
    compressai = "compressai"
    onnx = "onnx"
    openvino = "openvino"
    torch = "torch"


_OF_MODELS = (".onnx", ".xml", ".bin", ".pt", ".pt2", ".pth", ".tar", ".safetensors", ".zip")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A run folder, or a model.safetensors.")],
    out: Annotated[Path, typer.Argument(help="File (model, compressai) or new folder (onnx, openvino, torch).")],
    to: Annotated[
        Target,
        typer.Option(
            metavar="FORM",
            help="model: one safetensors file; compressai: a checkpoint for plain CompressAI; onnx, openvino: "
            "networks, tables and a driver without torch; torch: the same with torch.export programs.",
        ),
    ] = Target.model,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists; never a folder.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a trained model for deployment."""
    from ..errors import DistillkitError
    from ..export.export import export_model
    from ..model.file import load_model

    if to in (Target.model, Target.compressai):
        out = named(out, ".safetensors" if to is Target.model else ".pth.tar", f"export --to {to.value}")
    elif out.suffix in _OF_MODELS:
        raise DistillkitError(
            f"export --to {to.value} {out}: expected the name of a folder, for networks, tables and a driver, got one "
            f"that ends in {out.suffix}; leave that out."
        )
    on_part = notes(quiet, "export:")
    paths = export_model(load_model(model), to.value, out, overwrite=overwrite, on_part=on_part)
    size = sum(path.stat().st_size for path in paths)
    print(f"{out}: {len(paths)} file{'s' * (len(paths) != 1)}, {size / 1e6:.2f} MB")
