"""The command line: thin, and quick to answer, since heavy imports happen inside commands.

One file holds the commands of one kind; importing it registers them, in the order of `distillkit --help`.
"""

from . import train, export, family, measure, compare, report, registry  # noqa: F401, I001 - the order of --help
from .app import main

__all__ = ["main"]
