"""The errors that distillkit raises for bad input.

Each message says where, what was expected against what was got, and what to do next. The command line prints the
message alone and exits with code 2, and does the same where the system refuses a file or memory; anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DistillkitError(Exception):
    """Base of every error that bad input can cause."""


class PluginError(DistillkitError):
    """A plugin cannot be loaded, or registers something that cannot be used."""


class RecipeError(DistillkitError):
    """A recipe is not a valid description of a run."""


class DataError(DistillkitError):
    """Images cannot be used for training or evaluation."""


class PairError(DistillkitError):
    """A teacher and a student cannot be distilled into one another."""


class TapError(DistillkitError):
    """A feature tap is missing, did not fire, or no longer holds what it captured."""


class TrainingError(DistillkitError):
    """A run cannot continue: a loss is not finite, or its folder cannot be used."""


class DivergedError(TrainingError):
    """A loss or a weight is not finite."""


class CheckpointError(DistillkitError):
    """A checkpoint or model file is damaged, or does not belong to this run."""


class BitstreamError(DistillkitError):
    """A compressed file is damaged, or was not written by this model."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out; torch's and oneDNN's on CPUs are plain RuntimeErrors."""
    texts = ("allocate memory", "out of memory", "Cannot allocate", "bad_alloc", "bad allocation")
    texts += ("could not create a primitive", "could not create a memory")  # oneDNN's; it gives no reason, mostly this
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(text in str(error) for text in texts)
    )


def printable(text: str) -> str:
    r"""Return a text in which characters that control a terminal, or are no characters, are written as \x1b is here."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name closest to `name`, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
