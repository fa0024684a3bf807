"""What all commands share: the app, how it ends, how it prints."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ..errors import DistillkitError, is_out_of_memory, printable
from ..training.preemption import TrainingStopped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

app = typer.Typer(
    help="Distil large learned image codecs into small, fast ones.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
_FOR_SEVERAL = ("train", "resume")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _everywhere(context: typer.Context, quiet: bool) -> bool:
    """Return whether `-q` was given, before the command or after it."""
    return quiet or bool(context.find_root().params.get("quiet"))


Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", callback=_everywhere, help="No progress and no notes: only results and errors."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"distillkit {version('distillkit-lic')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def _check_processes(context: typer.Context, version: Version = False, quiet: Quiet = False) -> None:
    if context.invoked_subcommand not in _FOR_SEVERAL and os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1"):
        from ..training.distributed import refuse_several

        refuse_several(f"distillkit {context.invoked_subcommand}")


def main() -> None:
    """Run the command line; bad input ends with its message and exit code 2, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated")  # compressai and timm, when imported
    try:
        app()
    except DistillkitError as error:
        fail(str(error))
    except BrokenPipeError:  # the reader of the output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(f"{error.filename}: cannot be used: {error.strerror}." if error.filename else f"{error}.")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fail("expected enough memory, got too little; take smaller pictures or batches, or free memory.")


def fail(text: str) -> NoReturn:
    """End with a message and exit code 2."""
    print(f"distillkit: error: {printable(text)}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def goes_on_later() -> Generator[None]:
    """Turn Ctrl-C and SIGTERM into advice on how to continue, and exit codes 130 and 143."""
    try:
        yield
    except TrainingStopped as stopped:
        print(f"distillkit: {stopped} Give the same command again to continue.", file=sys.stderr)
        raise typer.Exit(143) from None  # what a shell reports for SIGTERM: the work is not done
    except KeyboardInterrupt:
        print("distillkit: stopped. To continue, give the same command, or `distillkit resume RUN`.", file=sys.stderr)
        raise typer.Exit(130) from None


def messages(quiet: bool) -> Console:
    """Return the console for progress and notes, which are no results: stderr, or nothing after `-q`."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False, quiet=quiet)


def notes(quiet: bool, what: str) -> Callable[[str], None]:
    """Return what writes a line before each part of a long work: `measuring teacher`."""
    console = messages(quiet)
    return lambda part: console.print(printable(f"{what} {part}"), highlight=False, soft_wrap=True)


def show(table: RenderableType, as_text: str, as_json: bool) -> None:
    """Print a table or several, or the JSON of the same."""
    from rich.console import Console

    if as_json:
        print(as_text.rstrip())
    else:
        Console(markup=False, emoji=False).print(table)  # brackets in names are brackets
