"""The option of all commands that run a codec: where it runs."""

from __future__ import annotations

from typing import Annotated

import typer


def _checked(context: typer.Context, choice: str | None) -> str | None:
    if choice not in (None, "cpu") and not context.resilient_parsing:
        from ..model.device import find_device

        find_device(choice, "--device")
    return choice


_HELP = "Where codecs run: cpu, cuda, one GPU of several (cuda:1), mps, or auto: a GPU where there is one."
Device = Annotated[str, typer.Option("--device", callback=_checked, help=_HELP)]
RunDevice = Annotated[
    str | None,
    typer.Option(
        "--device", callback=_checked, help=_HELP, show_default="to train, that of each recipe; to measure, cpu"
    ),
]
