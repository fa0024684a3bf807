"""Commands for training images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DataError
from .app import Quiet, app, messages


@app.command()
def pack(
    images: Annotated[Path, typer.Argument(help="Folder of images, searched recursively.")],
    out: Annotated[Path, typer.Argument(help="New folder for the shards; name it as a recipe's data.train.")],
    channels: Annotated[int, typer.Option(help="Samples of a pixel, for a codec of others than 8-bit RGB.")] = 3,
    bits: Annotated[int, typer.Option(help="Of a sample, for such a codec.")] = 8,
    shard_mib: Annotated[int, typer.Option(help="Size at which a shard is closed.", min=1)] = 512,
    quiet: Quiet = False,
) -> None:
    """Pack training images into tar shards (WebDataset's layout), and leave out those that cannot be used."""
    from rich.progress import Progress

    from ..data.samples import Samples
    from ..data.shards import pack as run

    try:
        samples = Samples(channels, bits)
    except ValueError as error:
        raise DataError(str(error)) from None
    with Progress(console=messages(quiet), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("packing")
        done = run(images, out, shard_mib, None, lambda n, total: bar.update(task, completed=n, total=total), samples)
    for problem in done.problems:
        print(f"distillkit: left out: {problem}", file=sys.stderr)
    print(f"{done.num_images} images in {done.num_shards} shards, {len(done.problems)} left out: {out}")
